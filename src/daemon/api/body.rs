//! A request's body as bytes that a blocking thread reads.

use std::io::{Error, Read, Result};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::limits::API_STREAM_DEPTH;

/// Reads a body as it arrives, a bounded part of it ahead. A body that breaks off is an error, never an end.
pub struct BodyReader {
    pieces: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// Reads `first` and then `body`. Call it within the runtime, which brings the pieces.
    pub fn after(first: Bytes, mut body: Body) -> BodyReader {
        let (sender, pieces) = mpsc::channel(API_STREAM_DEPTH);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let piece = match frame {
                    Ok(frame) => frame.into_data().map_err(|_| ()),
                    Err(error) => {
                        let _ = sender.send(Err(Error::other(format!("the request broke off: {error}")))).await;
                        return;
                    }
                };
                // Trailers are no data. A reader that has gone needs no more.
                if let Ok(piece) = piece
                    && sender.send(Ok(piece)).await.is_err()
                {
                    return;
                }
            }
        });
        BodyReader { pieces, current: first }
    }

    /// The writing end of a reader, for whoever has the pieces in another form.
    pub fn channel() -> (mpsc::Sender<Result<Bytes>>, BodyReader) {
        let (sender, pieces) = mpsc::channel(API_STREAM_DEPTH);
        (sender, BodyReader { pieces, current: Bytes::new() })
    }
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}
