//! The load: one epoll loop with any number of connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::group::Result;

/// Bytes of a message.
const MESSAGE: usize = 64;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listener that does not block, on any free port of the loopback.
pub(super) fn listen() -> Result<TcpListener> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

pub(super) struct Client {
    epoll: OwnedFd,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the answer that are still to come.
    missing: usize,
}

impl Client {
    pub(super) fn connect(address: SocketAddr, count: usize) -> Result<Client> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for key in 0..count {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            // Thousands of connections are dropped at once: let none of them linger.
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            let data = epoll::EventData::new_u64(key as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            connections.push(Connection { stream, missing: 0 });
        }
        Ok(Client { epoll, connections })
    }

    /// Sends a message on each connection, and the next one for each answer until the time has
    /// passed. Says how many answers came, and how long it took: until the last of them.
    pub(super) fn exchange(&mut self, time: Duration) -> Result<(u64, Duration)> {
        let began = Instant::now();
        self.connections.iter_mut().try_for_each(Connection::send)?;
        let mut events = Vec::with_capacity(1024);
        let (mut answers, mut open) = (0, self.connections.len());
        while open > 0 {
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            let over = began.elapsed() >= time;
            for event in &events {
                let connection = &mut self.connections[event.data.u64() as usize];
                if connection.answered()? {
                    answers += 1;
                    if over {
                        open -= 1;
                    } else {
                        connection.send()?;
                    }
                }
            }
        }
        Ok((answers, began.elapsed()))
    }
}

impl Connection {
    fn send(&mut self) -> Result<()> {
        self.missing = MESSAGE;
        Ok(self.stream.write_all(&[b'm'; MESSAGE])?)
    }

    /// Reads, and says whether the answer is complete.
    fn answered(&mut self) -> Result<bool> {
        match self.stream.read(&mut [0; MESSAGE]) {
            Ok(0) => Err("the server closed a connection".into()),
            Ok(count) => {
                self.missing -= count.min(self.missing);
                Ok(self.missing == 0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
