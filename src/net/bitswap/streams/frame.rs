//! Frames: an unsigned varint, and as many bytes.
//!
//! A length over the bound is refused before anything is read. Up to [`BITSWAP_FREE_FRAME_BYTES`] are read as they come;
//! whoever claims more has to have sent so much first, and then waits for memory that all share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::Memory;
use crate::limits::{BITSWAP_FREE_FRAME_BYTES, FRAME_STALL, MAX_BITSWAP_MESSAGE_BYTES, WRITE_STALL};

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

/// Reads a frame; `None` where the stream ends before one. `admit` waits until a frame of so many bytes may take memory,
/// and `go_on` is called now and then while a long frame comes.
pub async fn read<Admitted>(
    stream: &mut (impl AsyncRead + Unpin),
    memory: &Arc<Memory>,
    admit: impl AsyncFnOnce(usize) -> Admitted,
    mut go_on: impl FnMut(),
) -> Result<Option<(Bytes, Admitted)>, FrameError> {
    let Some(len) = read_length(stream).await? else { return Ok(None) };
    let free = len.min(BITSWAP_FREE_FRAME_BYTES);
    let mut frame = vec![0; free];
    fill(stream, &mut frame, &mut go_on).await?;
    let admitted = admit(len).await;
    if len == free {
        return Ok(Some((frame.into(), admitted)));
    }
    let mut whole = memory.room(len);
    whole.as_mut()[..free].copy_from_slice(&frame);
    fill(stream, &mut whole.as_mut()[free..], &mut go_on).await?;
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
    go_on: &mut impl FnMut(),
) -> Result<(), FrameError> {
    let mut filled = 0;
    let mut reported = Instant::now();
    while filled < buffer.len() {
        let end = (filled + PROGRESS_BYTES).min(buffer.len());
        // One timer for each step, and most steps are one read.
        let step = stream.read_exact(&mut buffer[filled..end]);
        timeout(FRAME_STALL, step).await.map_err(|_| FrameError::Stalled)??;
        filled = end;
        if filled < buffer.len() && reported.elapsed() > REPORT_EVERY {
            reported = Instant::now();
            go_on();
        }
    }
    Ok(())
}

/// Writes the pieces of a frame.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), pieces: &[Bytes]) -> Result<(), FrameError> {
    for step in pieces.iter().flat_map(|piece| piece.chunks(WRITE_BYTES)) {
        timeout(WRITE_STALL, stream.write_all(step)).await.map_err(|_| FrameError::Stalled)??;
    }
    timeout(WRITE_STALL, stream.flush()).await.map_err(|_| FrameError::Stalled)??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    async fn read_one(bytes: &[u8]) -> Result<Option<Bytes>, FrameError> {
        let mut admitted = None;
        let read = read(&mut Cursor::new(bytes), &Arc::default(), async |len| admitted = Some(len), || ()).await;
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
            write(&mut out, &[head.freeze(), body.clone()]).await.unwrap();
            assert_eq!(read_one(out.get_ref()).await.unwrap(), Some(body));
        }
        assert_eq!(read_one(&[]).await.unwrap(), None);
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
