//! Filters are run by an interpreter of the kernel's instructions, against what the profile's rules say when they are read
//! one by one.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::names::{ABIS, Abi};
use super::program::{AND, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, JUMP, LOAD, RETURN};
use super::{Profile, ProfileError, compile};
use crate::runner::config::DEFAULT_CAPABILITIES;
use crate::runner::seccomp;

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy)]
struct Call {
    audit: u32,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = Vec::new();
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.audit.to_le_bytes());
        bytes.extend(0x1234_5678_9abc_def0_u64.to_le_bytes());
        for argument in self.arguments {
            bytes.extend(argument.to_le_bytes());
        }
        let at = offset as usize;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// What the kernel would answer.
fn interpret(filter: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut word) = (0, 0);
    loop {
        let Instruction {
            code,
            if_true,
            if_false,
            operand,
        } = filter[at];
        at += 1;
        let test = match code {
            LOAD => {
                word = call.word(operand);
                continue;
            }
            AND => {
                word &= operand;
                continue;
            }
            JUMP => {
                at += operand as usize;
                continue;
            }
            RETURN => return operand,
            IF_EQUAL => word == operand,
            IF_GREATER => word > operand,
            IF_AT_LEAST => word >= operand,
            other => panic!("{other:#x} is no instruction of a filter"),
        };
        at += usize::from(if test { if_true } else { if_false });
    }
}

/// What the profile says of a call, read rule by rule: the specification.
fn said(profile: &Value, call: &Call) -> u32 {
    let architectures = profile["architectures"].as_array().unwrap();
    let listed = |abi: &&Abi| architectures.iter().any(|name| name == abi.name);
    let of_machine = ABIS
        .iter()
        .filter(listed)
        .filter(|abi| abi.audit == call.audit);
    let Some(abi) = of_machine
        .filter(|abi| call.number >= abi.first)
        .max_by_key(|abi| abi.first)
    else {
        return 0x8000_0000;
    };
    let errno = |value: &Value| 0x5_0000 | value.as_u64().unwrap_or(1) as u32;
    let mut youngest = abi.first;
    for rule in profile["syscalls"].as_array().unwrap() {
        for name in rule["names"].as_array().unwrap() {
            let number = (abi.number)(name.as_str().unwrap());
            youngest = youngest.max(number.unwrap_or(0));
            if number != Some(call.number) {
                continue;
            }
            let none = Vec::new();
            let conditions = rule["args"].as_array().unwrap_or(&none);
            if conditions.iter().all(|condition| holds(condition, call)) {
                return match rule["action"].as_str().unwrap() {
                    "SCMP_ACT_ALLOW" => 0x7fff_0000,
                    _ => errno(&rule["errnoRet"]),
                };
            }
        }
    }
    if call.number > youngest {
        return 0x5_0000 | libc::ENOSYS as u32;
    }
    errno(&profile["defaultErrnoRet"])
}

fn holds(condition: &Value, call: &Call) -> bool {
    let argument = call.arguments[condition["index"].as_u64().unwrap() as usize];
    let value = condition["value"].as_u64().unwrap();
    match condition["op"].as_str().unwrap() {
        "SCMP_CMP_NE" => argument != value,
        "SCMP_CMP_LT" => argument < value,
        "SCMP_CMP_LE" => argument <= value,
        "SCMP_CMP_EQ" => argument == value,
        "SCMP_CMP_GE" => argument >= value,
        "SCMP_CMP_GT" => argument > value,
        "SCMP_CMP_MASKED_EQ" => argument & value == condition["valueTwo"].as_u64().unwrap_or(0),
        other => panic!("{other}"),
    }
}

fn compiled(profile: &Value) -> Vec<Instruction> {
    let profile: Profile = serde_json::from_value(profile.clone()).unwrap();
    compile(&profile).unwrap()
}

/// Numbers that matter: those of known calls, their neighbours, and the edges.
fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![
        0_u32..600,
        (0_u32..600).prop_map(|number| 0x4000_0000 + number),
        0x0f_0000_u32..0x0f_0009,
        Just(u32::MAX),
        Just(0x3fff_ffff),
        any::<u32>(),
    ]
}

/// Arguments around the values that the rules compare with.
fn arguments() -> impl Strategy<Value = u64> {
    let near = |value: u64| {
        (0_u64..4).prop_map(move |distance| value.wrapping_add(distance).wrapping_sub(2))
    };
    prop_oneof![
        0_u64..64,
        near(0xffff_ffff),
        near(0x2_0000),
        near(0x2_0008),
        near(0x7e02_0000),
        near(1 << 32),
        (0_u64..32).prop_map(|bit| 1 << bit),
        (0_u64..64, any::<u32>()).prop_map(|(high, low)| high << 32 | u64::from(low)),
        any::<u64>(),
    ]
}

fn calls() -> impl Strategy<Value = Call> {
    let machine = prop_oneof![
        8 => proptest::sample::select(ABIS.iter().map(|abi| abi.audit).collect::<Vec<_>>()),
        1 => any::<u32>(),
    ];
    (machine, numbers(), proptest::array::uniform6(arguments())).prop_map(
        |(audit, number, arguments)| Call {
            audit,
            number,
            arguments,
        },
    )
}

fn conditions() -> impl Strategy<Value = Value> {
    let operators = [
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    (
        0_u32..6,
        arguments(),
        arguments(),
        proptest::sample::select(operators.to_vec()),
    )
        .prop_map(|(index, value, second, op)| {
            json!({ "index": index, "value": value, "valueTwo": value & second, "op": op })
        })
}

/// Profiles with rules on a few calls: some always, some under conditions, each call with one answer.
fn profiles() -> impl Strategy<Value = Value> {
    let some = [
        "read", "write", "openat", "socket", "clone", "kill", "ioctl", "execve", "statx",
    ];
    let rule = |name: &'static str| {
        let alternatives =
            proptest::collection::vec(proptest::collection::vec(conditions(), 0..4), 0..3);
        (alternatives, any::<bool>(), 1_u32..200).prop_map(move |(alternatives, allow, errno)| {
            let action = if allow {
                "SCMP_ACT_ALLOW"
            } else {
                "SCMP_ACT_ERRNO"
            };
            let rules = alternatives.into_iter().map(|args| {
                json!({ "names": [name], "action": action, "errnoRet": errno, "args": args })
            });
            rules.collect::<Vec<Value>>()
        })
    };
    let rules: Vec<_> = some.into_iter().map(rule).collect();
    (rules, 1_u32..200).prop_map(|(rules, errno)| {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": errno,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
            "syscalls": rules.concat(),
        })
    })
}

fn hold<S: Strategy>(cases: u32, of: &S, law: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config).run(of, law).unwrap();
}

#[test]
fn the_default_filters_say_what_their_profiles_say() {
    for (machine, capabilities) in [
        ("x86_64", DEFAULT_CAPABILITIES.as_slice()),
        ("x86_64", &["CAP_SYS_ADMIN"]),
        ("aarch64", &DEFAULT_CAPABILITIES),
    ] {
        let profile = seccomp::profile(machine, capabilities).unwrap();
        let filter = compiled(&profile);
        hold(500, &calls(), |call| {
            prop_assert_eq!(interpret(&filter, &call), said(&profile, &call));
            Ok(())
        });
    }
}

#[test]
fn any_filter_says_what_its_profile_says() {
    let case = (profiles(), proptest::collection::vec(calls(), 100));
    hold(200, &case, |(profile, calls)| {
        let filter = compiled(&profile);
        for call in calls {
            prop_assert_eq!(
                interpret(&filter, &call),
                said(&profile, &call),
                "{:?}",
                call
            );
        }
        Ok(())
    });
}

#[test]
fn every_known_call_is_decided_as_the_profile_says() {
    for machine in ["x86_64", "aarch64"] {
        let profile = seccomp::profile(machine, &DEFAULT_CAPABILITIES).unwrap();
        let filter = compiled(&profile);
        for abi in &ABIS {
            for number in (0..1000).map(|number| abi.first + number) {
                let call = Call {
                    audit: abi.audit,
                    number,
                    arguments: [0; 6],
                };
                assert_eq!(
                    interpret(&filter, &call),
                    said(&profile, &call),
                    "{call:x?}"
                );
            }
        }
    }
}

#[test]
fn the_numbers_are_the_kernels() {
    let check = |name: &str, call: &str, expected: Option<u32>| {
        let abi = ABIS.iter().find(|abi| abi.name == name).unwrap();
        assert_eq!((abi.number)(call), expected, "{name} {call}");
    };
    check("SCMP_ARCH_X86_64", "openat2", Some(437));
    check("SCMP_ARCH_X86_64", "socketcall", None);
    check("SCMP_ARCH_X32", "read", Some(0x4000_0000));
    check("SCMP_ARCH_X32", "execve", Some(0x4000_0000 + 520));
    check("SCMP_ARCH_X32", "pwritev2", Some(0x4000_0000 + 547));
    check("SCMP_ARCH_X32", "uselib", None);
    check("SCMP_ARCH_X86", "socketcall", Some(102));
    check("SCMP_ARCH_X86", "clone3", Some(435));
    check("SCMP_ARCH_AARCH64", "newfstatat", Some(79));
    check("SCMP_ARCH_AARCH64", "open", None);
    check("SCMP_ARCH_ARM", "set_tls", Some(0x0f_0005));
    check("SCMP_ARCH_ARM", "clone", Some(120));
}

#[test]
fn what_cannot_be_compiled_is_refused() {
    let compile_rules = |architecture: &str, rules: Value| {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": [architecture],
            "syscalls": rules,
        });
        compile(&serde_json::from_value(profile).unwrap()).err()
    };
    let allow = json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW" });
    let refuse = json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO" });
    let seventh = json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW",
                          "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] });
    let fine = compile_rules("SCMP_ARCH_X86_64", json!([allow, allow]));
    assert_eq!(fine, None);
    let unknown = compile_rules("SCMP_ARCH_PDP11", json!([allow]));
    assert_eq!(
        unknown,
        Some(ProfileError::Architecture("SCMP_ARCH_PDP11".into()))
    );
    let contradiction = compile_rules("SCMP_ARCH_X86_64", json!([allow, refuse]));
    assert!(matches!(
        contradiction,
        Some(ProfileError::Contradiction(_))
    ));
    let argument = compile_rules("SCMP_ARCH_X86_64", json!([seventh]));
    assert_eq!(argument, Some(ProfileError::Argument(6)));
    let action = json!({ "defaultAction": "SCMP_ACT_TRACE", "architectures": [], "syscalls": [] });
    assert!(serde_json::from_value::<Profile>(action).is_err());
}
