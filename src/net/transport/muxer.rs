//! Many streams on one encrypted connection: yamux, as libp2p has it.
//!
//! libp2p's own adapter fixes the length of the frames at 16 KiB. Each frame is a hand-over between the task of a stream and that
//! of its connection, on both sides, and a record of the cipher; ours are as long as Go's ([`MAX_MUXED_FRAME_BYTES`]), and what
//! comes in longer ones is cut ([`Cut`]). The connection reads whether or not somebody takes the streams that it brings: those
//! wait here, up to a bound.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter::{Once, once};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

use super::frames::Cut;
use crate::limits::{MAX_MUXED_FRAME_BYTES, MAX_STREAMS, MAX_WAITING_STREAMS};

/// Divides a connection into streams.
#[derive(Clone)]
pub(super) struct Yamux(Config);

impl Yamux {
    pub fn new() -> Yamux {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_split_send_size(MAX_MUXED_FRAME_BYTES);
        Yamux(config)
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<Cut<C>>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<Cut<C>>, Infallible>>;

    fn upgrade_inbound(self, connection: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(Connection::new(Cut::new(connection), self.0, Mode::Server))))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<Cut<C>>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<Cut<C>>, Infallible>>;

    fn upgrade_outbound(self, connection: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(Connection::new(Cut::new(connection), self.0, Mode::Client))))
    }
}

/// The streams of one connection.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    /// Streams that the peer has opened and nobody has taken yet.
    waiting: VecDeque<Stream>,
    /// Who would take one.
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(connection: Connection<C>) -> Muxer<C> {
        Muxer { connection, waiting: VecDeque::new(), taker: None }
    }

    /// Reads and writes, until the peer opens a stream.
    fn poll_opened(&mut self, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let opened = self.connection.poll_next_inbound(context);
        opened.map(|opened| opened.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let opened = self.poll_opened(context);
        if opened.is_pending() {
            self.taker = Some(context.waker().clone());
        }
        opened
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_new_outbound(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        match self.poll_opened(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(stream)) if self.waiting.len() < MAX_WAITING_STREAMS => {
                self.waiting.push_back(stream);
                if let Some(taker) = self.taker.take() {
                    taker.wake();
                }
            }
            // Dropped, it is reset: the peer opens more at once than it may without being answered.
            Poll::Ready(Ok(_)) => {}
        }
        // There may be more.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(context)
    }
}
