//! Programs that stand in for `cta-admin`, and the worker that a test can kill.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use common::cta::{self, Cta, Deadline};
use common::settings::CtaAdmin;

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for.
pub const SHORT: Duration = Duration::from_millis(300);

/// A directory with a program in it.
pub struct StandIn {
    pub directory: tempfile::TempDir,
    pub settings: CtaAdmin,
}

impl StandIn {
    /// A shell script; `$D` is the directory.
    pub fn script(body: &str) -> StandIn {
        let stand_in = StandIn::empty();
        let directory = stand_in.directory.path().display();
        stand_in.write(&format!("#!/bin/sh\nD='{directory}'\n{body}\n"), 0o755);
        stand_in
    }

    /// A script that prints exactly these bytes to standard output and then does the rest.
    pub fn printing(output: impl AsRef<[u8]>, rest: &str) -> StandIn {
        let stand_in = StandIn::script(&format!("cat \"$D/output\"\n{rest}"));
        fs::write(stand_in.path("output"), output).unwrap();
        stand_in
    }

    /// No program yet; it is to be called `cta-admin`.
    pub fn empty() -> StandIn {
        let directory = tempfile::tempdir().unwrap();
        let settings = CtaAdmin {
            program: directory.path().join("cta-admin"),
            user_config: None,
            repack_config: None,
            timeout: LONG,
            list_timeout: LONG,
        };
        StandIn { directory, settings }
    }

    pub fn write(&self, text: &str, mode: u32) {
        fs::write(&self.settings.program, text).unwrap();
        fs::set_permissions(&self.settings.program, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn timeout(mut self, timeout: Duration) -> StandIn {
        self.settings.timeout = timeout;
        self
    }

    pub fn list_timeout(mut self, timeout: Duration) -> StandIn {
        self.settings.list_timeout = timeout;
        self
    }

    pub fn cta(&self) -> Cta {
        Cta::new(&self.settings)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A named pipe. Whoever holds its other end is alive: reading it to the end waits for all of them to be gone.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }

    /// This program as a worker that runs one changing command with these settings and prints the answer.
    pub fn worker(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(WORKER).arg(&self.settings.program).arg(self.settings.timeout.as_millis().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        command
    }
}

/// Opens a named pipe for reading: waits until somebody opens it for writing.
pub fn open(fifo: &Path) -> BufReader<fs::File> {
    BufReader::new(fs::File::open(fifo).unwrap())
}

/// The next line, without its end.
pub fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Waits until nobody holds the other end any more.
pub fn until_all_are_gone(mut reader: impl Read) {
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
}

/// Whether a process is there and no zombie.
pub fn lives(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X']),
        Err(_) => false,
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// `tape reclaim`, for tests that only need some changing command.
pub fn reclaim() -> cta::Command {
    cta::Command::Reclaim { vid: "V01007".parse().unwrap() }
}

pub fn soon() -> Deadline {
    Deadline::after(LONG)
}

const WORKER: &str = "--worker-of-a-test";

/// The other side of [`StandIn::worker`].
pub fn worker_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != WORKER {
        return None;
    }
    let settings = CtaAdmin {
        program: args.next()?.into(),
        timeout: Duration::from_millis(args.next()?.to_str()?.parse().ok()?),
        ..StandIn::empty().settings
    };
    let _held = hold(settings.program.parent()?);
    println!("{:?}", block_on(Cta::new(&settings).change(&reclaim(), soon())));
    Some(ExitCode::SUCCESS)
}

/// A socket and a file that nothing we start may inherit. The file holds what the socket is called in `/proc`.
pub fn hold(directory: &Path) -> (std::net::TcpListener, fs::File) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
    let path = directory.join("held");
    fs::write(&path, name.to_str().unwrap()).unwrap();
    (listener, fs::File::open(path).unwrap())
}

/// What a worker printed.
pub fn answer_of(mut worker: Child) -> String {
    let mut answer = String::new();
    worker.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    worker.wait().unwrap();
    answer.trim_end().to_owned()
}
