//! Writing messages to a peer.

use std::sync::Arc;
use std::time::Instant;

use futures::AsyncWriteExt;
use libp2p::swarm::{ConnectionId, Stream};

use super::{Answer, OpenError, Outbox, frame, open};
use crate::net::bitswap::driver::Core;
use crate::net::bitswap::message::{Outgoing, Version, encode};
use crate::net::caps::Cap;

/// A stream of ours that is open.
type Open = Option<(Stream, Version)>;

/// Says what we want, message after message on one stream, until the peer is gone.
pub async fn tell(core: Arc<Core>, outbox: Arc<Outbox>) {
    let mut stream: Open = None;
    let mut carried_by = None;
    loop {
        let next = outbox.tell_ready.notified();
        let (message, is_gone) = {
            let mut queues = outbox.queues.lock();
            let is_gone = queues.connections.is_empty();
            let message = if is_gone {
                queues.tells.clear();
                None
            } else {
                queues.tells.pop_front()
            };
            queues.has_teller = !is_gone;
            (message, is_gone)
        };
        if is_gone {
            return;
        }
        let Some(message) = message else {
            next.await;
            continue;
        };
        let mut result = Err(OpenError::Failed);
        // What was open may have been closed by the peer meanwhile; the next one is new.
        for _ in 0..2 {
            let Some((id, connection)) = outbox.first_connection() else { break };
            if carried_by.replace(id) != Some(id)
                && let Some((mut old, _)) = stream.take()
            {
                // What was said there is still read to its end.
                core.runtime.spawn(async move { old.close().await });
            }
            if stream.is_none() {
                match open(&connection).await {
                    Ok((mut opened, version)) => {
                        opened.ignore_for_keep_alive();
                        stream = Some((opened, version));
                    }
                    Err(error) => {
                        result = Err(error);
                        if error == OpenError::NoProtocol {
                            break;
                        }
                        continue;
                    }
                }
            }
            if write(&mut stream, &message, None).await {
                result = Ok(());
                break;
            }
        }
        if result == Err(OpenError::NoProtocol) {
            core.no_protocol(outbox.number);
        }
        core.told(outbox.number, result.is_ok());
    }
}

/// Sends answers on one stream of a connection, until it is gone.
pub async fn answer(core: Arc<Core>, outbox: Arc<Outbox>, id: ConnectionId) {
    let mut stream: Open = None;
    loop {
        let next = outbox.answer_ready.notified();
        let Some(connection) = outbox.connection(id) else { break };
        let answer = outbox.queues.lock().answers.pop_front();
        let Some(answer) = answer else {
            next.await;
            continue;
        };
        let bytes: u64 = answer.message.blocks.iter().map(|block| block.data().len() as u64).sum();
        let start = Instant::now();
        let mut is_sent = false;
        for _ in 0..2 {
            if stream.is_none() {
                let Ok((mut opened, version)) = open(&connection).await else { break };
                opened.ignore_for_keep_alive();
                stream = Some((opened, version));
            }
            is_sent = write(&mut stream, &answer.message, Some(&core.config.caps.up)).await;
            if is_sent {
                break;
            }
        }
        let Answer { message, loaded_bytes } = answer;
        if is_sent {
            core.answered(outbox.number, loaded_bytes, bytes, message.blocks.len() as u64, start.elapsed());
            continue;
        }
        // Another connection may do better; the peer asks again where none does.
        let mut queues = outbox.queues.lock();
        let has_other = queues.used().any(|connection| connection.id != id && connection.answerers > 0);
        if has_other {
            queues.answers.push_front(Answer { message, loaded_bytes });
            queues.stop_answering(id);
            drop(queues);
            outbox.answer_ready.notify_one();
            return;
        }
        drop(queues);
        core.answered(outbox.number, loaded_bytes, 0, 0, start.elapsed());
    }
    outbox.leave_answers(&core, id);
}

async fn write(stream: &mut Open, message: &Outgoing, cap: Option<&Cap>) -> bool {
    let Some((open, version)) = stream else { return false };
    let is_written = frame::write(open, &encode(message, *version), cap).await;
    if let Err(error) = &is_written {
        tracing::debug!("a bitswap stream ended: {error}");
        *stream = None;
    }
    is_written.is_ok()
}
