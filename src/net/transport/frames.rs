//! Long frames of yamux, cut into shorter ones as they are read.
//!
//! The specification lets a frame be as long as the window of its stream, and js-libp2p makes use of that; the crate `yamux` takes
//! one over 1 MiB for an offence and ends the connection. It also takes memory for a whole frame when its head has come. So a
//! [`Cut`] below it hands on a long data frame as several: what opens the stream stays with the first of them, what ends it with
//! the last, and the window is charged for the same bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

use crate::limits::MAX_MUXED_FRAME_BYTES;

const HEAD_BYTES: usize = 12;
const DATA: u8 = 0;
/// Flags that begin a stream: SYN and ACK.
const OPENS: u16 = 1 | 2;
/// Flags that end one: FIN and RST.
const ENDS: u16 = 4 | 8;

/// A connection whose data frames are read no longer than [`MAX_MUXED_FRAME_BYTES`].
#[derive(Debug)]
pub(super) struct Cut<C> {
    below: C,
    at: At,
}

/// What is read next.
#[derive(Debug)]
enum At {
    /// The rest of a head that comes from below.
    Head { head: [u8; HEAD_BYTES], filled: usize },
    /// The rest of a head that is handed on; then a body of `body` bytes; then what is left of the frame as the peer sent it.
    Told { head: [u8; HEAD_BYTES], told: usize, body: usize, left: Left },
    /// The rest of a body.
    Body { body: usize, left: Left },
}

/// What is left of a long frame: its bytes, and the flags for the last of them.
#[derive(Clone, Copy, Debug)]
struct Left {
    head: [u8; HEAD_BYTES],
    bytes: usize,
}

impl<C> Cut<C> {
    pub fn new(below: C) -> Cut<C> {
        Cut { below, at: At::next() }
    }
}

impl At {
    fn next() -> At {
        At::Head { head: [0; HEAD_BYTES], filled: 0 }
    }

    /// What follows a head: the head itself, of a frame that is short enough.
    fn told(left: Left) -> At {
        let Left { mut head, bytes } = left;
        let body = bytes.min(MAX_MUXED_FRAME_BYTES);
        let rest = bytes - body;
        let flags = u16::from_be_bytes([head[2], head[3]]);
        let (now, later) = if rest > 0 { (flags & !ENDS, flags & !OPENS) } else { (flags, 0) };
        head[2..4].copy_from_slice(&now.to_be_bytes());
        head[8..].copy_from_slice(&(body as u32).to_be_bytes());
        let mut left = Left { head, bytes: rest };
        left.head[2..4].copy_from_slice(&later.to_be_bytes());
        At::Told { head, told: 0, body, left }
    }

    /// What follows a head that has come.
    fn came(head: [u8; HEAD_BYTES]) -> At {
        let bytes = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
        if head[1] == DATA {
            At::told(Left { head, bytes })
        } else {
            At::Told { head, told: 0, body: 0, left: Left { head, bytes: 0 } }
        }
    }

    /// What follows a body, or a head without one.
    fn after(body: usize, left: Left) -> At {
        match (body, left.bytes) {
            (0, 0) => At::next(),
            (0, _) => At::told(left),
            (body, _) => At::Body { body, left },
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Cut<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match &mut this.at {
                At::Head { head, filled } => {
                    let read = ready!(Pin::new(&mut this.below).poll_read(context, &mut head[*filled..]))?;
                    if read == 0 {
                        return Poll::Ready(if *filled == 0 {
                            Ok(0)
                        } else {
                            Err(io::ErrorKind::UnexpectedEof.into())
                        });
                    }
                    *filled += read;
                    if *filled == HEAD_BYTES {
                        this.at = At::came(*head);
                    }
                }
                At::Told { head, told, body, left } => {
                    let len = buffer.len().min(HEAD_BYTES - *told);
                    buffer[..len].copy_from_slice(&head[*told..*told + len]);
                    *told += len;
                    if *told == HEAD_BYTES {
                        this.at = At::after(*body, *left);
                    }
                    return Poll::Ready(Ok(len));
                }
                At::Body { body, left } => {
                    let len = buffer.len().min(*body);
                    let read = ready!(Pin::new(&mut this.below).poll_read(context, &mut buffer[..len]))?;
                    this.at = At::after(*body - read, *left);
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Cut<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.below).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncReadExt;
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;

    /// A frame as the peer sends it: kind, flags, stream, and length or body.
    #[derive(Clone, Debug)]
    struct Frame {
        kind: u8,
        flags: u16,
        stream: u32,
        len: u32,
        body: Vec<u8>,
    }

    impl Frame {
        fn bytes(&self) -> Vec<u8> {
            let mut bytes = vec![0, self.kind];
            bytes.extend(self.flags.to_be_bytes());
            bytes.extend(self.stream.to_be_bytes());
            bytes.extend(self.len.to_be_bytes());
            bytes.extend(&self.body);
            bytes
        }
    }

    /// Gives and takes no more than so many bytes at a time.
    struct Drops(Vec<u8>, usize);

    impl AsyncRead for Drops {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            let len = buffer.len().min(self.1).min(self.0.len());
            let rest = self.0.split_off(len);
            buffer[..len].copy_from_slice(&self.0);
            self.0 = rest;
            Poll::Ready(Ok(len))
        }
    }

    /// Reads frames as `yamux` does: a head, and then its body.
    async fn frames(mut connection: Cut<Drops>) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let mut head = [0; HEAD_BYTES];
            if connection.read(&mut head[..1]).await? == 0 {
                return Ok(frames);
            }
            connection.read_exact(&mut head[1..]).await?;
            let len = u32::from_be_bytes(head[8..].try_into().unwrap());
            let mut body = vec![0; if head[1] == DATA { len as usize } else { 0 }];
            connection.read_exact(&mut body).await?;
            let flags = u16::from_be_bytes(head[2..4].try_into().unwrap());
            let stream = u32::from_be_bytes(head[4..8].try_into().unwrap());
            frames.push(Frame { kind: head[1], flags, stream, len, body });
        }
    }

    fn sent() -> impl Strategy<Value = Frame> {
        let data = (0..16_u16, 1..9_u32, 0..4 * MAX_MUXED_FRAME_BYTES).prop_map(|(flags, stream, len)| {
            let body = (0..len).map(|at| (at / 7) as u8).collect();
            Frame { kind: DATA, flags, stream, len: len as u32, body }
        });
        let other = (1..4_u8, 0..16_u16, 0..9_u32, any::<u32>()).prop_map(|(kind, flags, stream, len)| Frame {
            kind,
            flags,
            stream,
            len,
            body: Vec::new(),
        });
        prop_oneof![data, other]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn long_frames_are_cut_and_say_the_same(sent in prop::collection::vec(sent(), 0..5), at_once in 1..100_000_usize) {
            let bytes = sent.iter().flat_map(Frame::bytes).collect();
            let mut came = block_on(frames(Cut::new(Drops(bytes, at_once)))).unwrap().into_iter();
            for sent in sent {
                let mut body = Vec::new();
                let mut flags = 0;
                let pieces = if sent.kind == DATA { sent.body.len().div_ceil(MAX_MUXED_FRAME_BYTES).max(1) } else { 1 };
                for piece in 0..pieces {
                    let frame = came.next().unwrap();
                    prop_assert_eq!((frame.kind, frame.stream), (sent.kind, sent.stream));
                    prop_assert!(frame.body.len() <= MAX_MUXED_FRAME_BYTES);
                    prop_assert!(piece == 0 || frame.flags & OPENS == 0, "a stream is opened once");
                    prop_assert!(piece == pieces - 1 || frame.flags & ENDS == 0, "nothing comes after the end");
                    if frame.kind != DATA {
                        prop_assert_eq!(frame.len, sent.len);
                    }
                    flags |= frame.flags;
                    body.extend(frame.body);
                }
                prop_assert_eq!((flags, body), (sent.flags, sent.body));
            }
            prop_assert!(came.next().is_none());
        }
    }

    #[test]
    fn a_head_that_breaks_off_is_an_error() {
        let error = block_on(frames(Cut::new(Drops(vec![0; 5], 100)))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_claim_of_4_gib_is_read_in_short_frames() {
        let mut bytes = Frame { kind: DATA, flags: 0, stream: 1, len: u32::MAX, body: Vec::new() }.bytes();
        bytes.resize(HEAD_BYTES + MAX_MUXED_FRAME_BYTES, 0);
        let mut connection = Cut::new(Drops(bytes, 100_000));
        let mut head = [0; HEAD_BYTES];
        block_on(connection.read_exact(&mut head)).unwrap();
        assert_eq!(head[8..], (MAX_MUXED_FRAME_BYTES as u32).to_be_bytes());
    }
}
