//! The commented example, written from the declarations.

use std::fmt::Write;

use crate::declare::{Declaration, Setting};

const HEAD: &str = "\
# The settings of Chapar, each with its default. Lines of settings are commented out: remove the
# `#` of those that you change. An unknown key is an error.
#
# A setting may also come from the environment: `name` of section `server` is CHAPAR_SERVER__NAME,
# the first listener's `address` is CHAPAR_LISTENERS__0__ADDRESS. The environment wins over the
# file, the command line over both.
#
# Sizes are written \"64 MiB\", durations \"30 s\"; paths are relative to where Chapar is started.
";

/// The whole example.
pub(crate) fn write(sections: &[Declaration]) -> String {
    let mut out = HEAD.to_owned();
    for section in sections {
        out.push('\n');
        comment(&mut out, section.doc);
        let (open, close) = if section.list {
            ("[[", "]]")
        } else {
            ("[", "]")
        };
        let _infallible = writeln!(out, "{open}{}{close}", section.key);
        for setting in &section.settings {
            write_setting(&mut out, setting);
        }
    }
    out
}

fn write_setting(out: &mut String, setting: &Setting) {
    out.push('\n');
    comment(out, setting.doc);
    let _infallible = writeln!(out, "# ({})", setting.kind);
    let _infallible = writeln!(out, "#{} = {}", setting.name, setting.default);
}

/// Documentation for the person at the file: a link's brackets say nothing there.
fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _infallible = writeln!(out, "#{}", line.trim_end());
    }
}
