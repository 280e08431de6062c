//! A static file server on one event queue per thread.

use std::io::{self, Write};
use std::process::ExitCode;

use kevent_serve::options::Command;
use kevent_serve::server::Server;

fn main() -> ExitCode {
    let options = match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Print(text)) => return print(&text),
        Err(error) => {
            eprintln!("kevent-serve: {error}\nTry `kevent-serve --help`.");
            return ExitCode::from(2);
        }
    };
    let server = match Server::new(&options) {
        Ok(server) => server,
        Err(failure) => return fail(&failure),
    };
    for address in server.addresses() {
        print(&format!("listening on http://{address}\n"));
    }
    match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// A reader who has gone away is no reason to fail.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
    ExitCode::SUCCESS
}

fn fail(failure: &dyn std::error::Error) -> ExitCode {
    eprintln!("kevent-serve: {failure}");
    ExitCode::FAILURE
}
