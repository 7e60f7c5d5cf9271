//! Lets this crate's tests be their own step helper, as the binary `buildyard` is in earnest.
//!
//! A test program's `main` belongs to the test harness, which starts threads. What the system calls before `main` sees the
//! arguments first, in a process that has one thread still.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use super::{STEP_HELPER, step_helper, sys};

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
    let mut arguments = arguments.peekable();
    if arguments.next_if(|first| first == STEP_HELPER).is_some() {
        // Whether it went well was said to the worker already.
        let _ = step_helper(arguments);
        sys::exit(0);
    }
}
