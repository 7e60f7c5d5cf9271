//! What `--chmod` does to a mode: octal, or symbolic as in chmod(1).

/// A change of a mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// The mode is this.
    Octal(u32),
    /// Clauses of a symbolic mode, applied in order.
    Symbolic(Vec<Clause>),
}

/// One `who op permissions` of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Whose bits may change: a mask of `0o7777`, zero if none was named.
    who: u32,
    operation: Operation,
    permissions: Vec<Permission>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    /// These bits, for each of user, group and other.
    Bits(u32),
    /// Execution, if it is a directory or anybody may execute it already.
    ConditionalExecute,
    /// What user (6), group (3) or other (0) has, by the shift of its bits.
    CopyOf(u32),
}

/// A mode that is neither octal nor symbolic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode {0:?} (want octal like 755 or symbolic like u=rwX,go=rX)")]
pub struct BadMode(String);

/// BuildKit applies symbolic modes that name nobody under this mask, and makes directories under it.
pub(super) const UMASK: u32 = 0o022;

impl ModeChange {
    /// Reads an octal (`0755`) or symbolic (`u=rwX,go-w`) mode.
    ///
    /// # Errors
    ///
    /// Neither of them.
    pub fn parse(text: &str) -> Result<Self, BadMode> {
        let bad = || BadMode(text.chars().take(100).collect());
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            return if mode <= 0o7777 {
                Ok(Self::Octal(mode))
            } else {
                Err(bad())
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_clauses(part.as_bytes(), &mut clauses).ok_or_else(bad)?;
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The mode that becomes of `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                let may_execute = is_directory || mode & 0o111 != 0;
                clauses
                    .iter()
                    .fold(mode, |mode, clause| clause.apply(mode, may_execute))
            }
        }
    }
}

/// `[ugoa]*([-+=][rwxXst]*|[ugo])+`, the part between two commas.
fn parse_clauses(text: &[u8], clauses: &mut Vec<Clause>) -> Option<()> {
    let named = text
        .iter()
        .take_while(|byte| b"ugoa".contains(byte))
        .count();
    let who = text[..named].iter().fold(0, |who, byte| {
        who | match byte {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o0007,
            _ => 0o7777,
        }
    });
    let mut rest = &text[named..];
    if rest.is_empty() {
        return None;
    }
    while let Some((operation, after)) = rest.split_first() {
        let operation = match operation {
            b'+' => Operation::Add,
            b'-' => Operation::Remove,
            b'=' => Operation::Set,
            _ => return None,
        };
        let length = after
            .iter()
            .take_while(|byte| !b"+-=".contains(byte))
            .count();
        let permissions = after[..length]
            .iter()
            .map(|byte| permission(*byte))
            .collect::<Option<_>>()?;
        clauses.push(Clause {
            who,
            operation,
            permissions,
        });
        rest = &after[length..];
    }
    Some(())
}

fn permission(byte: u8) -> Option<Permission> {
    Some(match byte {
        b'r' => Permission::Bits(0o444),
        b'w' => Permission::Bits(0o222),
        b'x' => Permission::Bits(0o111),
        b's' => Permission::Bits(0o6000),
        b't' => Permission::Bits(0o1000),
        b'X' => Permission::ConditionalExecute,
        b'u' => Permission::CopyOf(6),
        b'g' => Permission::CopyOf(3),
        b'o' => Permission::CopyOf(0),
        _ => return None,
    })
}

impl Clause {
    fn apply(&self, mode: u32, may_execute: bool) -> u32 {
        let bits = self.permissions.iter().fold(0, |bits, permission| {
            bits | match permission {
                Permission::Bits(more) => *more,
                Permission::ConditionalExecute if may_execute => 0o111,
                Permission::ConditionalExecute => 0,
                Permission::CopyOf(shift) => ((mode >> shift) & 7) * 0o111,
            }
        });
        // The sticky bit belongs to nobody: `u+t` sets it, `o+t` does not.
        let sticky = if self.who == 0 || self.who & !0o7 != 0 {
            bits & 0o1000
        } else {
            0
        };
        let (reach, clears) = match self.who {
            0 => (!UMASK & 0o6777, 0o6777),
            who => (who & 0o6777, who & 0o6777),
        };
        let bits = (bits & reach) | sticky;
        match self.operation {
            Operation::Add => mode | bits,
            Operation::Remove => mode & !bits,
            Operation::Set => (mode & !clears & !sticky) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_with_chmod() {
        let check = |text: &str, from: u32, directory: bool, expected: u32| {
            let change = ModeChange::parse(text).expect(text);
            assert_eq!(
                format!("{:o}", change.apply(from, directory)),
                format!("{expected:o}"),
                "{text} {from:o}"
            );
        };
        check("755", 0o644, false, 0o755);
        check("0644", 0o7777, false, 0o644);
        check("4755", 0o644, false, 0o4755);
        check("u+x", 0o644, false, 0o744);
        check("+x", 0o644, false, 0o755);
        check("+w", 0o444, false, 0o644);
        check("a+w", 0o444, false, 0o666);
        check("go-w", 0o666, false, 0o644);
        check("go=", 0o777, false, 0o700);
        check("go=u-w", 0o760, false, 0o755);
        check("=rw,+X", 0o755, false, 0o755);
        check("=rw,+X", 0o644, false, 0o644);
        check("=rw,+X", 0o755, true, 0o755);
        check("u=rwX,go=rX", 0o600, false, 0o644);
        check("u=rwX,go=rX", 0o700, false, 0o755);
        check("u=rwX,go=rX", 0o600, true, 0o755);
        check("a+X", 0o644, false, 0o644);
        check("a+X", 0o744, false, 0o755);
        check("a+X", 0o600, true, 0o711);
        check("u+s", 0o755, false, 0o4755);
        check("g+s", 0o755, true, 0o2755);
        check("o+s", 0o755, false, 0o755);
        check("+t", 0o777, true, 0o1777);
        check("o+t", 0o777, true, 0o777);
        check("u=g", 0o750, false, 0o550);
        check("ug+rw,o-rwx", 0o447, false, 0o660);
        check("u+r-x", 0o300, false, 0o600);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "u", "u+q", "999", "77777", "u+x,", "x", "u*x", "-1x"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
