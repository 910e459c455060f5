//! Completions and manual pages, made from the definitions of the command lines.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::generate;
use clap_mangen::Man;

use crate::cli::{Cli, Program, Shell};
use crate::output::{Desk, Exit};

/// The command line of a program.
pub fn command(program: Program) -> Command {
    match program {
        Program::Manager => Cli::command(),
        Program::Producer => producer::cli::command(),
        Program::Worker => worker::cli::Cli::command(),
    }
}

/// Prints the script that completes a program's words.
///
/// # Errors
/// When it cannot be written.
pub fn completions(shell: Shell, program: Program, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let mut command = command(program);
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(clap_complete::Shell::Bash, &mut command, name, &mut script),
        Shell::Zsh => generate(clap_complete::Shell::Zsh, &mut command, name, &mut script),
        Shell::Fish => generate(clap_complete::Shell::Fish, &mut command, name, &mut script),
    }
    desk.out.write_all(&script)?;
    desk.out.flush()?;
    Ok(Exit::Done)
}

/// Prints this program's page, or writes every page into a directory, and says which.
///
/// # Errors
/// When it cannot be written.
pub fn man(dir: Option<&Path>, json: bool, desk: &mut Desk<'_>) -> anyhow::Result<Exit> {
    let Some(dir) = dir else {
        let mut command = command(Program::Manager);
        command.build();
        page(&command, desk.out)?;
        desk.out.flush()?;
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(dir).with_context(|| format!("making the directory {}", dir.display()))?;
    let mut files = Vec::new();
    for program in [Program::Manager, Program::Producer, Program::Worker] {
        let mut command = command(program).disable_help_subcommand(true);
        command.build();
        let name = command.get_name().to_owned();
        write_all(&command, &name, dir, &mut files)?;
    }
    for alias in producer::cli::aliases() {
        let verb = alias.rsplit('-').next().unwrap_or_default();
        let text = format!(".so man1/{}-{verb}.1\n", producer::cli::PROGRAM);
        keep(dir, format!("{alias}.1"), text.as_bytes(), &mut files)?;
    }
    if json {
        desk.data(&serde_json::json!({"directory": dir, "files": files}).to_string())?;
    } else {
        files.iter().try_for_each(|file| desk.data(file))?;
    }
    Ok(Exit::Done)
}

fn write_all(command: &Command, name: &str, dir: &Path, files: &mut Vec<String>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    page(command, &mut text)?;
    keep(dir, format!("{name}.1"), &text, files)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write_all(verb, &format!("{name}-{}", verb.get_name()), dir, files)?;
    }
    Ok(())
}

fn keep(dir: &Path, file: String, text: &[u8], files: &mut Vec<String>) -> anyhow::Result<()> {
    let path = dir.join(&file);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    files.push(file);
    Ok(())
}

/// A longer line that is not indented is a sentence: an example, or a row of a table, is.
const LINE: usize = 78;

/// One page; what follows the options in the help keeps its lines.
fn page(command: &Command, out: &mut dyn Write) -> anyhow::Result<()> {
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let man = Man::new(command.clone());
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(out)?;
    }
    if command.get_subcommands().any(|verb| !verb.is_hide_set()) {
        man.render_subcommands_section(out)?;
    }
    if let Some(after) = after {
        write!(out, "{}", verbatim(&after))?;
    }
    Ok(())
}

/// Text as it stands: `Examples:` and the like become headings, lines stay lines.
fn verbatim(text: &str) -> String {
    let mut page = String::new();
    let mut filled = false;
    if !text.starts_with("Examples:") {
        page.push_str(".SH NOTES\n.nf\n");
        filled = true;
    }
    for line in text.lines() {
        if line == "Examples:" {
            page.push_str(if filled { ".fi\n.SH EXAMPLES\n.nf\n" } else { ".SH EXAMPLES\n.nf\n" });
            filled = true;
            continue;
        }
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or a quote at the beginning would be a request of the formatter.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        // A sentence that the help leaves to the width of the terminal is left to that of the page.
        let (fill, keep) = if line.len() > LINE && !line.starts_with(' ') { (".fi\n", "\n.nf") } else { ("", "") };
        page.push_str(&format!("{fill}{guard}{line}{keep}\n"));
    }
    page.push_str(".fi\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_options_keeps_its_lines_and_steers_no_formatter() {
        let page = verbatim("Examples:\n  x --y\n.so /etc/passwd\n'x\\n");
        assert_eq!(page, ".SH EXAMPLES\n.nf\n  x \\-\\-y\n\\&.so /etc/passwd\n\\&'x\\en\n.fi\n");
    }

    #[test]
    fn a_sentence_without_breaks_of_its_own_is_broken_where_the_page_ends() {
        let long = "word ".repeat(30).trim_end().to_owned();
        assert_eq!(
            verbatim(&format!("Examples:\n  {long}\n\n{long}")),
            format!(".SH EXAMPLES\n.nf\n  {long}\n\n.fi\n{long}\n.nf\n.fi\n")
        );
    }

    #[test]
    fn every_program_and_verb_has_a_page_and_every_old_name_leads_to_one() {
        let home = tempfile::tempdir().unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut desk = Desk { out: &mut out, err: &mut err, ask: None, width: None, colour: false };
        man(Some(home.path()), false, &mut desk).unwrap();
        let files = String::from_utf8(out).unwrap();
        let there = |name: &str| files.lines().any(|file| file == name) && home.path().join(name).is_file();
        for program in [Program::Manager, Program::Producer, Program::Worker] {
            let command = command(program);
            assert!(there(&format!("{}.1", command.get_name())));
            for verb in command.get_subcommands() {
                assert!(there(&format!("{}-{}.1", command.get_name(), verb.get_name())), "{}", verb.get_name());
            }
        }
        for alias in producer::cli::aliases() {
            let link = std::fs::read_to_string(home.path().join(format!("{alias}.1"))).unwrap();
            let target = link.trim().strip_prefix(".so man1/").unwrap();
            assert!(there(target), "{alias} leads to {target}");
        }
    }
}
