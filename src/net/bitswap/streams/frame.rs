//! Frames: an unsigned varint, and as many bytes.
//!
//! A length over the bound is refused before anything is read. Up to [`BITSWAP_FREE_FRAME_BYTES`] are read as they come;
//! whoever claims more has to have sent so much first, and then waits for memory that all share.
//!
//! A cap is paid for bit by bit, so that a long frame goes on all the while and nobody takes a slow line for a dead one. What is waited
//! for ourselves counts for no deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::Memory;
use crate::limits::{BITSWAP_FREE_FRAME_BYTES, FRAME_STALL, MAX_BITSWAP_MESSAGE_BYTES, WRITE_STALL};
use crate::net::caps::Cap;

/// Why a stream is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame longer than a message may be.
    #[error("a bitswap message of {0} bytes, more than the {MAX_BITSWAP_MESSAGE_BYTES} that one may have")]
    TooLong(u64),
    /// A length that is no varint.
    #[error("a bitswap message whose length is no varint")]
    Length,
    /// The frame was begun and does not go on.
    #[error("a bitswap message that does not go on")]
    Stalled,
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
}

/// What must have come of a frame within [`FRAME_STALL`].
const PROGRESS_BYTES: usize = 64 * 1024;
/// What is written between two looks at the clock.
const WRITE_BYTES: usize = 256 * 1024;
/// How often it is reported that a frame goes on.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// What has to have come since the last report: what comes in drops is as good as nothing.
const REPORT_BYTES: usize = 1024;

/// What is told and asked of others while a frame is read.
pub struct Reading<'a, Admit, GoOn> {
    /// Where long frames lie.
    pub memory: &'a Arc<Memory>,
    /// What bounds the speed.
    pub cap: &'a Cap,
    /// Waits until a frame of so many bytes may take memory.
    pub admit: Admit,
    /// Called now and then while a long frame comes.
    pub go_on: GoOn,
}

/// Reads a frame; `None` where the stream ends before one.
pub async fn read<Admitted>(
    stream: &mut (impl AsyncRead + Unpin),
    Reading { memory, cap, admit, mut go_on }: Reading<'_, impl AsyncFnOnce(usize) -> Admitted, impl FnMut()>,
) -> Result<Option<(Bytes, Admitted)>, FrameError> {
    let Some(len) = read_length(stream).await? else { return Ok(None) };
    let free = len.min(BITSWAP_FREE_FRAME_BYTES);
    let mut frame = vec![0; free];
    fill(stream, &mut frame, cap, &mut go_on).await?;
    let admitted = admit(len).await;
    if len == free {
        return Ok(Some((frame.into(), admitted)));
    }
    let mut whole = memory.room(len);
    whole.as_mut()[..free].copy_from_slice(&frame);
    fill(stream, &mut whole.as_mut()[free..], cap, &mut go_on).await?;
    Ok(Some((whole.into_bytes(), admitted)))
}

async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<usize>, FrameError> {
    let mut len = 0_u64;
    let mut byte = [0];
    for index in 0..9 {
        // A stream may lie open for long between two messages.
        let read = if index == 0 {
            stream.read(&mut byte).await?
        } else {
            timeout(FRAME_STALL, stream.read(&mut byte)).await.map_err(|_| FrameError::Stalled)??
        };
        if read == 0 {
            return if index == 0 { Ok(None) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) };
        }
        len |= u64::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] & 0x80 == 0 {
            let is_shortest = byte[0] != 0 || index == 0;
            let fits = len <= MAX_BITSWAP_MESSAGE_BYTES as u64;
            return match (is_shortest, fits) {
                (false, _) => Err(FrameError::Length),
                (true, false) => Err(FrameError::TooLong(len)),
                (true, true) => Ok(Some(len as usize)),
            };
        }
    }
    Err(FrameError::Length)
}

async fn fill(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    cap: &Cap,
    go_on: &mut impl FnMut(),
) -> Result<(), FrameError> {
    let mut filled = 0;
    let (mut reported, mut filled_then) = (Instant::now(), 0);
    while filled < buffer.len() {
        let end = (filled + PROGRESS_BYTES).min(buffer.len());
        let mut waited = Duration::ZERO;
        while filled < end {
            let step = filled + cap.step_bytes(end - filled);
            let begun = Instant::now();
            let read = timeout(FRAME_STALL.saturating_sub(waited), stream.read(&mut buffer[filled..step]));
            let read = read.await.map_err(|_| FrameError::Stalled)??;
            waited += begun.elapsed();
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            filled += read;
            if filled - filled_then >= REPORT_BYTES && reported.elapsed() > REPORT_EVERY {
                (reported, filled_then) = (Instant::now(), filled);
                go_on();
            }
            cap.take(read as u64).await;
        }
    }
    Ok(())
}

/// Writes the pieces of a frame, no faster than `cap` allows.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    pieces: &[Bytes],
    cap: Option<&Cap>,
) -> Result<(), FrameError> {
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let most = rest.len().min(WRITE_BYTES);
            let step = cap.map_or(most, |cap| cap.step_bytes(most));
            if let Some(cap) = cap {
                cap.take(step as u64).await;
            }
            let (now, later) = rest.split_at(step);
            rest = later;
            send(stream, now).await?;
            if step < most {
                flush(stream).await?;
            }
        }
    }
    flush(stream).await
}

/// Writes so many bytes. As long as the other side takes some, it goes on.
async fn send(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), FrameError> {
    while !bytes.is_empty() {
        let written = timeout(WRITE_STALL, stream.write(bytes)).await.map_err(|_| FrameError::Stalled)??;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn flush(stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), FrameError> {
    Ok(timeout(WRITE_STALL, stream.flush()).await.map_err(|_| FrameError::Stalled)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    async fn read_one(bytes: &[u8]) -> Result<Option<Bytes>, FrameError> {
        let mut admitted = None;
        let admit = async |len| admitted = Some(len);
        let reading = Reading { memory: &Arc::default(), cap: &Cap::default(), admit, go_on: || () };
        let read = read(&mut Cursor::new(bytes), reading).await;
        if let Ok(Some((frame, ()))) = &read {
            assert_eq!(admitted, Some(frame.len()));
        }
        read.map(|frame| frame.map(|(frame, ())| frame))
    }

    #[tokio::test]
    async fn frames_go_both_ways() {
        for len in [0, 1, 127, 128, BITSWAP_FREE_FRAME_BYTES, BITSWAP_FREE_FRAME_BYTES + 1, 4 << 20] {
            let body = Bytes::from(vec![7; len]);
            let mut out = Cursor::new(Vec::new());
            let mut head = bytes::BytesMut::new();
            prost::encoding::encode_varint(len as u64, &mut head);
            write(&mut out, &[head.freeze(), body.clone()], None).await.unwrap();
            assert_eq!(read_one(out.get_ref()).await.unwrap(), Some(body));
        }
        assert_eq!(read_one(&[]).await.unwrap(), None);
    }

    /// A place to write to that notes how much came at a time, and when.
    #[derive(Default)]
    struct Notes {
        written: Vec<(Instant, usize)>,
        flushed: usize,
    }

    impl AsyncWrite for Notes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.written.push((Instant::now(), bytes.len()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed = self.written.len();
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Bytes a second, and how many pass in one step of it.
    const RATE: u64 = 100_000;
    const STEP_BYTES: usize = 10_000;
    /// What a second and a half lets pass, and a burst.
    const LEN: usize = 160_000;

    #[tokio::test]
    async fn a_long_frame_is_written_bit_by_bit_under_a_small_cap() {
        let cap = Cap::default();
        cap.set_rate(Some(RATE));
        let mut notes = Notes::default();
        write(&mut notes, &[Bytes::from(vec![7; LEN])], Some(&cap)).await.unwrap();
        assert_eq!(notes.written.iter().map(|(_, len)| len).sum::<usize>(), LEN);
        assert!(notes.written.iter().all(|(_, len)| *len <= STEP_BYTES), "{:?}", notes.written);
        assert_eq!(notes.flushed, notes.written.len(), "nothing stays behind");
        // However late one step is, the next one is not early: a tenth of a second's worth may come at once.
        for (index, (begun, _)) in notes.written.iter().enumerate() {
            for (end, (at, _)) in notes.written.iter().enumerate().skip(index + 3) {
                let least = Duration::from_millis(100) * (end - index - 2) as u32;
                assert!(at.duration_since(*begun) >= least, "steps {index} to {end} within {:?}", *at - *begun);
            }
        }
    }

    #[tokio::test]
    async fn a_long_frame_shows_that_it_comes_while_a_small_cap_holds_it_back() {
        let cap = Cap::default();
        cap.set_rate(Some(RATE));
        let mut bytes = bytes::BytesMut::new();
        prost::encoding::encode_varint(LEN as u64, &mut bytes);
        bytes.resize(bytes.len() + LEN, 7);
        let mut signs = 0;
        let begun = Instant::now();
        let reading = Reading { memory: &Arc::default(), cap: &cap, admit: async |_| (), go_on: || signs += 1 };
        let read = read(&mut Cursor::new(&bytes), reading).await.unwrap();
        assert_eq!(read.unwrap().0, vec![7; LEN]);
        assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
        assert!(signs >= 2, "{signs} signs in a second and a half");
    }

    #[tokio::test]
    async fn a_frame_of_2_gib_is_refused_by_its_length() {
        let mut head = bytes::BytesMut::new();
        prost::encoding::encode_varint(2 << 30, &mut head);
        assert!(matches!(read_one(&head).await, Err(FrameError::TooLong(len)) if len == 2 << 30));
        assert!(matches!(read_one(&[0xff; 12]).await, Err(FrameError::Length)));
        assert!(matches!(read_one(&[0x80, 0]).await, Err(FrameError::Length)));
        assert!(matches!(read_one(&[5, 1, 2]).await, Err(FrameError::Io(_))));
    }
}
