//! How slowly a body may come: a gateway that sends a byte a second holds a connection, memory, and a reader.
//!
//! Only the time spent waiting for the gateway counts: not what our own caps, or a slow disk behind us, hold back.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use super::GatewayError;
use crate::limits::{GATEWAY_MIN_RATE, GATEWAY_PACE_AFTER, GATEWAY_STALL};

/// Reads a body piece by piece, at no less than the least pace.
pub(super) struct Pace {
    response: Response,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub fn new(response: Response) -> Pace {
        Pace { response, waited: Duration::ZERO, bytes: 0 }
    }

    /// How much has come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn broke_off(&self, why: impl Into<String>) -> GatewayError {
        GatewayError::BrokeOff { bytes: self.bytes, why: why.into() }
    }

    /// The next piece, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GatewayError> {
        let begun = std::time::Instant::now();
        let piece = tokio::time::timeout(GATEWAY_STALL, self.response.chunk()).await;
        self.waited += begun.elapsed();
        match piece {
            Err(_) => Err(self.broke_off(format!("nothing came for {} s", GATEWAY_STALL.as_secs()))),
            Ok(Err(error)) => Err(self.broke_off(innermost(&error))),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(piece))) => {
                self.bytes += piece.len() as u64;
                if is_too_slow(self.bytes, self.waited) {
                    return Err(self.broke_off(format!(
                        "{} bytes in {} s are too slow",
                        self.bytes,
                        self.waited.as_secs()
                    )));
                }
                Ok(Some(piece))
            }
        }
    }
}

fn is_too_slow(bytes: u64, waited: Duration) -> bool {
    waited > GATEWAY_PACE_AFTER && (bytes as f64) < waited.as_secs_f64() * GATEWAY_MIN_RATE as f64
}

/// The cause at the bottom, which says what happened.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_a_second_is_too_slow_and_a_slow_line_is_not() {
        assert!(!is_too_slow(5, Duration::from_secs(5)), "the first seconds are free");
        assert!(is_too_slow(60, Duration::from_mins(1)));
        assert!(!is_too_slow(60 * GATEWAY_MIN_RATE, Duration::from_mins(1)));
    }
}
