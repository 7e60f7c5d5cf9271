//! Lets the program of this crate's tests be something else too: its own step helper, as the binary `buildyard` is in
//! earnest; the program that looks around in a container; a worker that is there to be killed.
//!
//! A test program's `main` belongs to the test harness, which starts threads. What the system calls before `main` sees the
//! arguments first, in a process that has one thread still.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use super::{STEP_HELPER, probe, step_helper, tests};

#[used]
// SAFETY: the section holds pointers to functions of this type; the C library calls each with the program's arguments.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = before_main;

extern "C" fn before_main(
    count: c_int,
    arguments: *const *const c_char,
    _environment: *const *const c_char,
) {
    let arguments = (1..usize::try_from(count).unwrap_or(0)).map(|index| {
        // SAFETY: the program was started with that many strings, which live as long as it does.
        let text = unsafe { CStr::from_ptr(*arguments.add(index)) };
        OsStr::from_bytes(text.to_bytes()).to_owned()
    });
    let mut arguments = arguments;
    let Some(command) = arguments.next() else {
        return;
    };
    match command.to_str() {
        Some(STEP_HELPER) => {
            // Whether it went well was said to the worker already.
            let _ = step_helper(arguments);
        }
        Some(probe::COMMAND) => probe::look_around(),
        Some(tests::DOOMED) => tests::be_doomed(&arguments.collect::<Vec<_>>()),
        _ => return,
    }
    std::process::exit(0);
}
