//! The command line.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use kevent_aio::Choice;
use lexopt::prelude::*;

/// What `--help` prints.
pub const HELP: &str = "\
kevent-serve: a static file server that nothing stalls

Usage: kevent-serve [OPTIONS] [ROOT]

Serves the files below ROOT, the current directory unless said otherwise, over HTTP/1.1.
Names that begin with a dot are not served (except .well-known), nor is anything outside ROOT.

Options:
  -l, --listen ADDR:PORT   address to listen on; may be given several times; port 0 takes a
                           free one and prints it [default: 127.0.0.1:8080]
  -t, --threads N          threads, each with a queue of its own [default: one per core]
      --log PATH|-         append a line for each request to PATH, or write it to stdout;
                           SIGHUP opens PATH anew [default: no log]
      --aio WAY            auto, uring or pool: how files are read [default: $KEVENT_AIO, or auto]
  -h, --help               print this
  -V, --version            print the version

SIGTERM or SIGINT stops accepting, lets requests finish for up to 10 seconds, and exits; a second
one exits at once.
";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Serve(Options),
    /// Print that on stdout.
    Print(String),
}

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// How many threads serve.
    pub threads: NonZeroUsize,
    /// Where the log goes.
    pub log: Option<LogTarget>,
    /// The backend of file I/O, where it is not left to the environment.
    pub aio: Option<Choice>,
    /// The folder to serve.
    pub root: PathBuf,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// To standard output.
    Stdout,
    /// To the end of that file.
    File(PathBuf),
}

impl Command {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with it.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut options = Options {
            listen: Vec::new(),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            log: None,
            aio: None,
            root: PathBuf::from("."),
        };
        let mut root = None;
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(Command::Print(HELP.to_owned())),
                Short('V') | Long("version") => {
                    let version = concat!("kevent-serve ", env!("CARGO_PKG_VERSION"), "\n");
                    return Ok(Command::Print(version.to_owned()));
                }
                Short('l') | Long("listen") => {
                    options.listen.extend(addresses(&parser.value()?.string()?)?);
                }
                Short('t') | Long("threads") => options.threads = threads(parser.value()?)?,
                Long("log") => options.log = Some(log_target(parser.value()?)),
                Long("aio") => options.aio = Some(parser.value()?.parse()?),
                Value(path) if root.is_none() => root = Some(PathBuf::from(path)),
                Value(extra) => {
                    let extra = extra.to_string_lossy();
                    return Err(format!("one ROOT is served, `{extra}` is a second one").into());
                }
                other => return Err(other.unexpected()),
            }
        }
        options.root = root.unwrap_or(options.root);
        if options.listen.is_empty() {
            options.listen.push(SocketAddr::from(([127, 0, 0, 1], 8080)));
        }
        Ok(Command::Serve(options))
    }
}

/// More threads than this are a slip of the finger.
const THREADS_MAX: usize = 1024;

fn threads(value: OsString) -> Result<NonZeroUsize, lexopt::Error> {
    let threads: NonZeroUsize = value
        .parse()
        .map_err(|error| format!("--threads takes a number from 1 to {THREADS_MAX}: {error}"))?;
    if threads.get() > THREADS_MAX {
        return Err(format!("--threads takes a number from 1 to {THREADS_MAX}").into());
    }
    Ok(threads)
}

fn addresses(text: &str) -> Result<Vec<SocketAddr>, lexopt::Error> {
    let found: Vec<_> = text
        .to_socket_addrs()
        .map_err(|error| {
            format!("--listen takes ADDR:PORT, as in 127.0.0.1:8080 or [::1]:0: `{text}`: {error}")
        })?
        .collect();
    if found.is_empty() {
        return Err(format!("--listen: `{text}` has no address").into());
    }
    Ok(found)
}

fn log_target(value: OsString) -> LogTarget {
    if value == "-" || value == "/dev/stdout" {
        LogTarget::Stdout
    } else {
        LogTarget::File(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        match Command::parse(arguments.iter().map(OsString::from)) {
            Ok(Command::Serve(options)) => Ok(options),
            Ok(Command::Print(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn nothing_said_serves_here_on_loopback() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.listen, [SocketAddr::from(([127, 0, 0, 1], 8080))]);
        assert_eq!(options.root, PathBuf::from("."));
        assert_eq!((options.log, options.aio.is_none()), (None, true));
    }

    #[test]
    fn everything_said_is_taken() {
        let options = parse(&[
            "-l",
            "[::1]:0",
            "--listen=127.0.0.1:1",
            "-t3",
            "--log",
            "-",
            "--aio=pool",
            "d",
        ])
        .unwrap();
        assert_eq!(options.listen.len(), 2);
        assert_eq!(options.threads.get(), 3);
        assert_eq!(options.log, Some(LogTarget::Stdout));
        assert_eq!(parse(&["--log=/dev/stdout"]).unwrap().log, options.log);
        assert!(matches!(options.aio, Some(Choice::Pool)));
        assert_eq!(options.root, PathBuf::from("d"));
    }

    #[test]
    fn bad_input_gets_a_sentence_that_says_what_to_do() {
        for (arguments, says) in [
            (&["--listen", "nowhere"][..], "ADDR:PORT"),
            (&["--threads", "0"], "from 1 to"),
            (&["--threads", "99999"], "from 1 to"),
            (&["--aio", "magic"], "auto, uring or pool"),
            (&["a", "b"], "second"),
            (&["--frobnicate"], "--frobnicate"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(says), "{arguments:?} said {error:?}");
        }
    }
}
