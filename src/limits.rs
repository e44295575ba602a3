//! Every bound of cidfs, named, with its reason.
//!
//! A bound says what bad input gets; `docs/semantics.md` lists them for users, and each has a test that crosses it.

use std::time::Duration;

/// Words of a streamed answer that wait for a slow client: enough to keep both sides busy, little enough to hold.
pub const API_STREAM_DEPTH: usize = 16;

/// Requests that the control API works on at once; more wait their turn. Each may hold a thread.
pub const API_MAX_REQUESTS: usize = 64;

/// The bytes that the control API reads of a file at once: as many as the kernel asks for at most.
pub const API_PIECE_BYTES: usize = 1024 * 1024;

/// Entries of a directory that the control API lists at once.
pub const API_LISTING_ENTRIES: usize = 256;

/// The head of a request to import paths, in bytes: what the longest command line comes to as JSON.
pub const API_HEAD_BYTES: usize = 16 * 1024 * 1024;

/// How long a daemon that `cidfs mount` started waits for its first mount: its starter sends it at once, or is dead.
pub const FIRST_MOUNT_WAIT: Duration = Duration::from_secs(20);

/// How long a verb waits for the process that has the repository: a daemon that starts or ends takes less.
pub const REPOSITORY_WAIT: Duration = Duration::from_secs(3);

/// How long the daemon waits, once told to end, for reads and requests in flight: as long as a read may take.
pub const SHUTDOWN_GRACE: Duration = Duration::from_mins(1);

/// How long `cidfs mount` waits for the daemon that it started: opening a store of 10^7 blocks takes seconds.
pub const DAEMON_START_WAIT: Duration = Duration::from_mins(2);

/// The longest log of a daemon in the background, in bytes: weeks of an ordinary one. One older log of as much is kept.
pub const DAEMON_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// The largest block that is stored, read, or accepted from anywhere: the size every bitswap implementation carries.
pub const MAX_BLOCK_BYTES: usize = 2 * 1024 * 1024;

/// The longest digest of an identity CID (IPIP-512): longer ones are data smuggled in a name.
pub const MAX_IDENTITY_DIGEST_BYTES: usize = 128;

/// The longest digest of a hash function: the 512 bits of the widest functions.
pub const MAX_DIGEST_BYTES: usize = 64;

/// The shortest digest that is trusted: below 160 bits a second preimage is within reach.
pub const MIN_DIGEST_BYTES: usize = 20;

/// The longest CID that a record may carry: version, codec and hash code as varints, and the widest digest.
pub const MAX_RECORD_CID_BYTES: usize = 96;

/// What one record checksum covers: what the kernel asks of a file at once is a multiple of it, so a read of a part of a
/// large leaf reads and checks little more than that part.
pub const CHECKSUM_PIECE_BYTES: usize = 64 * 1024;

/// Records in one segment: its table is read into memory whole when it is loaded, and stays below 32 MiB.
pub const MAX_SEGMENT_RECORDS: u32 = 1 << 18;

/// The longest segment file: positions in it are 32 bits in its table.
pub const MAX_SEGMENT_BYTES: u64 = 3 << 30;

/// What an open segment holds in RAM before it writes: enough that small blocks cost no system call each.
pub const SEGMENT_TAIL_BYTES: usize = 256 * 1024;

/// Segments that wait to be sealed before a writer must wait too: it then runs at the speed of the disk.
pub const MAX_UNSEALED_SEGMENTS: usize = 4;

/// Segments whose files are open at once: two descriptors each, half of what an ordinary process may have.
pub const MAX_OPEN_SEGMENT_FILES: usize = 256;

/// Read buffers that are kept for the next reads, in bytes: a few reads of the largest block on each core.
pub const IDLE_BUFFER_BYTES: usize = 8 << 20;

/// What each heap of the allocator may keep at its end, in bytes: the frames that come and go in some milliseconds.
pub const IDLE_HEAP_BYTES: i32 = 2 << 20;

/// What is allocated by itself and given back to the system at once, in bytes: more than any block or part of an import.
pub const MAPPED_ALLOCATION_BYTES: i32 = 4 << 20;

/// What the database may cache of its file, in bytes: its upper pages. The rest is the kernel's.
pub const DATABASE_CACHE_BYTES: usize = 8 << 20;

/// Facts that wait in RAM for the next write to the database.
pub const MAX_PENDING_FACTS: usize = 16 * 1024;

/// The longest name of a pin or a root, in bytes: it is shown as a file's name.
pub const MAX_ROOT_NAME_BYTES: usize = MAX_NAME_BYTES;

/// Levels of directories in a path or a walk: past any real tree, and small enough for an iterative walk's stack.
pub const MAX_DIRECTORY_DEPTH: usize = 256;

/// Levels of one file's tree: 64 levels of two links hold more than an exabyte.
pub const MAX_FILE_DEPTH: usize = 64;

/// The longest name in a directory, as Linux has it (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;

/// The longest target of a symbolic link, as Linux has it (`PATH_MAX` less the NUL).
pub const MAX_SYMLINK_BYTES: usize = 4095;

/// Readings of the disk ahead of readers at a time, while no reader waits for the disk: enough to keep its queue full.
pub const MAX_READS_AHEAD: usize = 4;

/// Decoded directories and inner nodes of files that are kept, in bytes: the directories of a million files, and little
/// beside the RAM tier.
pub const MAX_NODE_CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The longest read, in bytes, that is taken for one of a reader that jumps about in a file: the most that the kernel asks
/// for at once where nobody has raised its read-ahead.
pub const MAX_PARTIAL_READ_BYTES: u64 = 128 * 1024;

/// Children of a file's node that one read asks for at once: enough to fill a path to a peer, and at most 32 MiB of
/// blocks in flight for a reader.
pub const READ_CONCURRENCY: usize = 16;

/// Children that a listing learns of at once. Their blocks are small, and a round trip to a peer is not.
pub const LISTING_CONCURRENCY: usize = 256;

/// Blocks that are nothing but a link, in a row: nobody has a use for more than one.
pub const MAX_LINK_HOPS: usize = 16;

/// Shards of a HAMT that are read for one page of its listing: an honest trie has names in most of them, and one that
/// names a few shards over and over must not keep a thread for ever.
pub const MAX_SHARDS_PER_PAGE: usize = 4096;

/// Files whose readers are watched for prefetch: those read last.
pub const MAX_PREFETCHED_FILES: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1024).unwrap();

/// Plans at a time: far more jobs than one machine runs.
pub const MAX_PLANS: usize = 64;

/// Processes whose orders one plan takes by turns: those of one machine, each with an accelerator, and room.
pub const MAX_PLAN_RANKS: usize = 256;

/// Files in one plan: more than the largest collections of images that people train on file by file, some 800 MB for their
/// CIDs and sizes, and far below 2^32 / 20, from where torch draws permutations in another way.
pub const MAX_PLAN_FILES: usize = 1 << 24;

/// The longest path in an order of files, in bytes: as many levels of directories as a walk goes down.
pub const MAX_PLAN_PATH_BYTES: usize = MAX_DIRECTORY_DEPTH * (MAX_NAME_BYTES + 1);

/// The paths of one plan's files and directories while it is made, in bytes: 64 for each of its most files. Only a tree that
/// was made to has more.
pub const MAX_PLAN_PATHS_BYTES: u64 = 1 << 30;

/// Warmups in the background at a time, and those that have ended that `cidfs status` remembers.
pub const MAX_WARMUPS: usize = 16;

/// Random words that are drawn and dropped to come to the epoch of a plan: a minute's work, and thousands of epochs of a
/// million files.
pub const MAX_SKIPPED_WORDS: u64 = 1 << 34;

/// Symbolic links that one path is followed through, as Linux has it.
pub const MAX_SYMLINK_HOPS: usize = 40;

/// Names of directories that are held to tell in which order their files are read: some 30 MB where all are in use. A
/// directory of more names is read without looking ahead in it.
pub const MAX_WATCHED_NAMES: usize = 1 << 18;

/// What prefetch reads from the disk, or pushes, at a time: a reader's own request waits for one such piece at most, which
/// takes about a millisecond.
pub const PREFETCH_BATCH_BYTES: u64 = 2 << 20;

/// Files in such a piece, however small.
pub const PREFETCH_BATCH_FILES: usize = 256;

/// What is brought ahead of one reader of many files, in bytes: the reader takes some ten milliseconds for it from RAM, and
/// more would only push out what comes after.
pub const PREFETCH_WINDOW_BYTES: u64 = 32 << 20;

/// Orders of files that are followed in one mount at a time: more readers than a machine has cores would share its disk badly.
pub const MAX_FOLLOWED_ORDERS: usize = 64;

/// Roots whose readers are watched in one mount, those read last.
pub const MAX_WATCHED_ROOTS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(16).unwrap();

/// Bits that say which files of a root were read in a pass: 512 KiB. In a tree of a million files every fifth shares its bit
/// with another, and is left to whoever reads it.
pub const PREFETCH_PASS_BITS: usize = 1 << 22;

/// The size from which the serving profile copies a file to hand it to the kernel: below, a copy saves less than the
/// opens that it slows.
pub const MIN_COPIED_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Different blocks of one file that the extended attributes count: 256 GiB in leaves of 1 MiB, and some
/// 25 MiB to count them with.
pub const MAX_COUNTED_BLOCKS: usize = 1 << 18;

/// The fewest slots of a HAMT shard: a bitfield is whole bytes.
pub const HAMT_FANOUT_MIN: usize = 8;

/// The most slots of a HAMT shard, as the specification has it: a shard stays far below the size of a block.
pub const HAMT_FANOUT_MAX: usize = 1024;

/// The bits of the hash that a HAMT descends by: a trie that is deeper has no slot left for any name.
pub const HAMT_HASH_BITS: u32 = 64;

/// The largest chunk that a chunker may be asked for: with the dag-pb node around it, it is still a block.
pub const MAX_CHUNK_BYTES: usize = MAX_BLOCK_BYTES - 256;

/// How much of a file one task of an import reads and hashes: enough that handing it over costs nothing beside it, and
/// little enough that all cores share one file.
pub const IMPORT_PART_BYTES: usize = 4 * 1024 * 1024;

/// How many bytes of files an import reads ahead of the block that it keeps next: a few parts for each core.
pub const IMPORT_AHEAD_BYTES: u64 = 64 * 1024 * 1024;

/// How many entries an import looks ahead: empty files cost memory too.
pub const IMPORT_AHEAD_ENTRIES: usize = 4096;

/// Levels of maps and lists in one block of dag-cbor or dag-json, as the Go implementation has it: past any real data,
/// and a few KiB for the stack of a reader that does not recurse.
pub const MAX_IPLD_DEPTH: usize = 1024;

/// The longest CID in bytes: version, codec, hash function and length as varints, and the longest digest.
pub const MAX_CID_BYTES: usize = 1 + 9 + 9 + 2 + MAX_IDENTITY_DIGEST_BYTES;

/// The longest header of a CAR: 50,000 roots, and as much as a reader holds for a block anyway.
pub const MAX_CAR_HEADER_BYTES: usize = MAX_BLOCK_BYTES;

/// The longest section of a CAR: the largest block under the longest CID.
pub const MAX_CAR_SECTION_BYTES: usize = MAX_CID_BYTES + MAX_BLOCK_BYTES;

/// The longest name of a pin, as kubo has it.
pub const MAX_PIN_NAME_BYTES: usize = 255;

/// Levels that a walk of a whole DAG goes down: 256 directories, each of them sharded, and a file come to 5,440; chains of
/// blocks that name the one before go deeper. A level costs a walk about a hundred bytes.
pub const MAX_WALK_DEPTH: usize = 65_536;

/// The nodes that a walk holds on its way down, in bytes of blocks: 16 of the largest, or hundreds of usual ones. Those
/// above are fetched again on the way back.
pub const MAX_WALK_BYTES: usize = 32 * 1024 * 1024;

/// Blocks that are fetched at once: enough to fill a path of 1 Gbit/s and 100 ms with small blocks. More wait their turn.
pub const MAX_FETCHES: usize = 512;

/// How many of them may be for nobody yet, or for a reader soon: the rest is for readers that wait.
pub const MAX_EARLY_FETCHES: usize = 256;

/// How many fetches for a reader soon are begun while a reader waits: they share the line with its block.
pub const MAX_READ_AHEAD_BESIDE_DEMAND: usize = 64;

/// How many fetches for nobody yet are begun while a reader waits: readers that take one small file after the other always
/// wait, and the rest is to fill a path of 1 Gbit/s and 20 ms meanwhile. Who sends them sends the reader's first.
pub const MAX_BACKGROUND_BESIDE_DEMAND: usize = 64;

/// How many times `fetch.timeout` a reader waits in all, however steadily something arrives: what comes in drops must not
/// hold it for ever.
pub const FETCH_PATIENCE: u32 = 5;

/// How long a block that nobody has is not asked for again: longer than a program's retries, shorter than a person's.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(30);

/// Failures that are remembered: a directory's worth of missing blocks, in some 2 MiB.
pub const MAX_REMEMBERED_FAILURES: std::num::NonZeroUsize = std::num::NonZeroUsize::new(16 * 1024).unwrap();

/// Fetches that are remembered for `cidfs why`, and as many again of those that were slow or failed.
pub const RECENT_FETCHES: usize = 512;

/// What is remembered of one fetch: questions and answers. The first and the last say most.
pub const MAX_FETCH_NOTES: usize = 32;

/// Fetched blocks that wait for the disk, in bytes: a second of a fast line.
pub const MAX_UNKEPT_BYTES: usize = 64 * 1024 * 1024;

/// Roots whose blocks are written side by side, each into a segment of its own.
pub const MAX_FETCH_WRITERS: usize = 4;

/// What is fetched for a root before it may be evicted, in bytes: a writer holds what it has written.
pub const FETCH_WRITER_BYTES: usize = 64 * 1024 * 1024;

/// Blocks that a walk of a whole DAG has fetched ahead of it: enough to fill a path of 1 Gbit/s and 100 ms.
pub const WALK_AHEAD_BLOCKS: usize = 256;

/// What a walk has fetched ahead of it, in bytes, as far as sizes are known.
pub const WALK_AHEAD_BYTES: usize = 32 * 1024 * 1024;

/// Roots of which is remembered which source brought their last block.
pub const MAX_FETCH_SESSIONS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1024).unwrap();

/// Streams on one connection: a busy peer has hundreds of messages under way, each on its own.
pub const MAX_STREAMS: usize = 1024;

/// The data in one frame of a stream, in bytes. With its head it fills four records of the cipher; longer ones would make what
/// is urgent wait on a slow line.
pub const MAX_MUXED_FRAME_BYTES: usize = 64 * 1024 - 12;

/// Streams of one connection that a peer has opened and nobody has taken yet: yamux lets it open no more without an answer.
pub const MAX_WAITING_STREAMS: usize = 256;

/// What is read of a connection at once, in bytes: as much as arrives while the reader is about something else.
pub const SOCKET_READ_BYTES: usize = 128 * 1024;

/// What is gathered for a connection before it is encrypted and written, in bytes: one whole frame.
pub const SOCKET_WRITE_BYTES: usize = 64 * 1024;

/// Streams of one connection whose protocol is not agreed on yet: bitswap opens one for each message, and what exceeds this
/// is dropped.
pub const MAX_NEGOTIATING_STREAMS: usize = 1024;

/// How long a new connection has to be encrypted and divided into streams: far more than an honest one takes, and little
/// enough that half-open ones do not pile up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much later than TCP a peer is dialed over QUIC: enough for TCP and its encryption within a continent.
pub const QUIC_HANDICAP: Duration = Duration::from_millis(200);

/// Connections that are being made at once, in each direction.
pub const MAX_PENDING_CONNECTIONS: u32 = 128;

/// Connections to one peer: a few for speed, and those that two sides made at the same moment.
pub const MAX_CONNECTIONS_OF_PEER: u32 = 8;

/// What the connections may take of memory beside the RAM tier before no more are taken, in bytes.
pub const NETWORK_MEMORY_BYTES: usize = 1 << 30;

/// Peers whose addresses are remembered without being connected.
pub const MAX_BOOK_PEERS: usize = 4096;

/// Addresses that are remembered of one such peer: what a machine with several networks has.
pub const MAX_BOOK_ADDRESSES: usize = 16;

/// How long a new connection is spared when there are too many: until it is known what it is good for.
pub const TRIM_GRACE: Duration = Duration::from_secs(20);

/// How often it is looked whether there are too many connections.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(10);

/// The wait before the first new try to connect to a peer that we stay connected to; it doubles with each.
pub const PEERING_FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest such wait: a member that comes back is found within minutes.
pub const PEERING_MAX_WAIT: Duration = Duration::from_mins(5);

/// How often the node looks what is due.
pub const NODE_TICK: Duration = Duration::from_millis(500);

/// Questions that wait for the node's task; more make those who ask wait.
pub const NODE_TASKS: usize = 1024;

/// With fewer peers than this the configured ones are asked for others.
pub const BOOTSTRAP_PEERS: usize = 4;

/// How often they are.
pub const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(30);

/// How long the node takes at most to say goodbye.
pub const SHUTDOWN_NODE: Duration = Duration::from_secs(1);

/// How long a connection that somebody asked for may take, with every address of the peer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a ping may take.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Providers that one search hands over: past this the rest is no help.
pub const MAX_FOUND_PROVIDERS: usize = 256;

/// How long a search of the DHT may take.
pub const DHT_QUERY_TIMEOUT: Duration = Duration::from_mins(1);

/// Peers that a search of the DHT asks at once, as kubo does.
pub const DHT_PARALLELISM: std::num::NonZeroUsize = std::num::NonZeroUsize::new(10).unwrap();

/// How long it is kept for others who provides what, as the specification has it.
pub const PROVIDER_RECORD_LIFE: Duration = Duration::from_hours(48);

/// Keys whose providers are kept for others: some 30 MB where each has a few, and far more than one node's share.
pub const MAX_PROVIDED_KEYS: usize = 65_536;

/// Providers that are kept of one key: as many as an answer has room for.
pub const MAX_PROVIDERS_OF_KEY: usize = 20;

/// Addresses that are kept of a provider.
pub const MAX_RECORD_ADDRESSES: usize = 16;

/// The longest key of a record: the longest multihash.
pub const MAX_RECORD_KEY_BYTES: usize = 9 + 2 + MAX_IDENTITY_DIGEST_BYTES;

/// Keys of our own that are remembered as announced, to name ourselves when we are asked; more are announced and forgotten.
pub const MAX_OWN_KEYS: usize = 65_536;

/// Roots whose sessions with peers are kept for the next read: who had a root's blocks is worth remembering.
pub const MAX_PEER_SESSIONS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(256).unwrap();

/// Searches for providers that run at once.
pub const MAX_SEARCHES: usize = 16;

/// Searches whose outcome is remembered, and that wait: past this no more are begun until some are old.
pub const MAX_REMEMBERED_SEARCHES: usize = 1024;

/// How long the outcome of a search for providers counts: it is not made again sooner.
pub const SEARCH_MEMORY: Duration = Duration::from_secs(30);

/// How often a fetch from peers looks whether anybody is left to ask.
pub const PEERS_GLANCE: Duration = Duration::from_millis(250);

/// How long nobody must have been left to ask before a fetch from peers gives up: a peer may be connecting.
pub const LAST_WORD: Duration = Duration::from_secs(2);

/// How long it may take to turn out that we can be reached, before relays are asked to let others through.
pub const RELAY_DELAY: Duration = Duration::from_secs(30);

/// Relays that we listen through: one, and one for when it goes.
pub const RELAYS: usize = 2;

/// How long a peer that was asked to relay is not asked again.
pub const RELAY_PAUSE: Duration = Duration::from_mins(10);

/// Announcements that are under way at once: each asks dozens of peers.
pub const ANNOUNCEMENTS_AT_ONCE: usize = 16;

/// Blocks and roots that entered and wait to be announced; what exceeds this waits for the next round.
pub const ANNOUNCEMENTS_WAITING: usize = 4096;

/// How often it is looked whether anybody is known who keeps announcements.
pub const ANNOUNCEMENT_RETRY: Duration = Duration::from_secs(1);

/// The longest bitswap message, as the specification has it: two blocks of the largest size. A longer one ends its stream
/// before it is read.
pub const MAX_BITSWAP_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Wants, blocks and presences in one bitswap message: four full wantlists. Empty ones take two bytes in the message and
/// thirty times that in memory.
pub const MAX_BITSWAP_MESSAGE_ITEMS: usize = 65_536;

/// What a frame of bitswap may claim before its sender has to wait for memory: nobody gets more for the price of a length.
pub const BITSWAP_FREE_FRAME_BYTES: usize = 64 * 1024;

/// Frames of one peer that are being received or hashed, in bytes: four of the largest.
pub const MAX_PEER_FRAME_BYTES: usize = 4 * MAX_BITSWAP_MESSAGE_BYTES;

/// Frames of all peers that are being received or hashed, in bytes: enough for ten fast peers at once.
pub const MAX_FRAME_BYTES: usize = 96 * 1024 * 1024;

/// The memory of frames that is kept for the next ones, in bytes: a few of the usual, for each core.
pub const IDLE_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// Bitswap streams that one peer may have open to us on a connection: Go opens one a message where it is in a hurry.
pub const MAX_BITSWAP_STREAMS: usize = 128;

/// How long a frame that was begun may go without 64 KiB of it, or its end: the slowest modem is faster.
pub const FRAME_STALL: Duration = Duration::from_secs(15);

/// How long an answer may lie in a stream that its receiver does not read.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// Wants of one peer that stand: what other implementations refuse lies below. Further ones are answered `DONT_HAVE`.
pub const MAX_WANTLIST_ENTRIES: usize = 16_384;

/// The memory that answers to one peer may take: its wants, and the blocks that are loaded for it.
pub const MAX_QUEUED_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Blocks that are loaded to be sent, for all peers, in bytes.
pub const MAX_LOADED_ANSWER_BYTES: u64 = 48 * 1024 * 1024;

/// The blocks in one message to a peer, in bytes: large enough that a message costs nothing beside them, small enough
/// that the first one does not wait for long.
pub const ANSWER_MESSAGE_BYTES: u64 = 1024 * 1024;

/// The same for a slow peer.
pub const MIN_ANSWER_MESSAGE_BYTES: u64 = 64 * 1024;

/// Streams of one connection that blocks go out on at once: each has 256 KiB on its way at first, and waits for its reader's word
/// before it sends more.
pub const ANSWER_STREAMS: usize = 3;

/// The largest block that is sent in place of a `HAVE`: asking for it would cost as much. Go has the same.
pub const HAVE_IS_BLOCK_BYTES: u32 = 1024;

/// Wants in flight with one peer: Go keeps 1,024 of a peer and forgets the rest.
pub const MAX_WANTS_IN_FLIGHT: usize = 960;

/// The bytes in flight from one peer: 5 Gbit/s over 100 ms.
pub const MAX_WINDOW_BYTES: u64 = 64 * 1024 * 1024;

/// The bytes in flight from a peer whose speed is not known yet.
pub const FIRST_WINDOW_BYTES: u64 = 1024 * 1024;

/// Peers that one bitswap session asks: more do not make it faster.
pub const MAX_SESSION_PEERS: usize = 64;

/// Blocks of a session that connected peers are asked for while nobody is known to have any: its root and a few more.
pub const MAX_PROBED_WANTS: usize = 8;

/// Blocks that were asked for and came from elsewhere, remembered for each peer, so that they count as duplicates when they
/// come after all.
pub const MAX_LATE_BLOCKS: usize = 4096;

/// Blocks that other peers of a session have got, as far as their cancels tell.
pub const MAX_HOLDER_HINTS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(16_384).unwrap();

/// Blocks that came for a root that others fetch too, and are passed on to them from RAM, in bytes: what two walks have
/// fetched ahead of them.
pub const MAX_HELD_BYTES: u64 = 64 * 1024 * 1024;

/// Roots whose providers are remembered after their last session.
pub const MAX_REMEMBERED_ROOTS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(256).unwrap();

/// Requests to one gateway at once: enough to fill a path with small blocks. Over HTTP/1.1 each has a connection.
pub const GATEWAY_REQUESTS: usize = 64;

/// How many of them may be for blocks that no reader waits for.
pub const GATEWAY_EARLY_REQUESTS: usize = 48;

/// Gateways that are asked for the same block at once.
pub const GATEWAY_HEDGES: usize = 3;

/// How often one gateway is asked for one block, where what went wrong may pass.
pub const GATEWAY_ATTEMPTS: u32 = 4;

/// How long a gateway that failed once is left alone; twice as long after each further failure.
pub const GATEWAY_BACKOFF: Duration = Duration::from_millis(250);

/// How long a gateway is left alone at most, whatever it says itself.
pub const GATEWAY_MAX_BACKOFF: Duration = Duration::from_mins(1);

/// How long a block waits for a gateway that is left alone, where there is no other: a restart of one.
pub const GATEWAY_WAIT: Duration = Duration::from_secs(10);

/// How long a connection to a gateway may take.
pub const GATEWAY_CONNECT: Duration = Duration::from_secs(5);

/// How long a gateway may take to answer: it may have to find the block itself.
pub const GATEWAY_ANSWER: Duration = Duration::from_secs(30);

/// How long the body of an answer may stand still.
pub const GATEWAY_STALL: Duration = Duration::from_secs(10);

/// How long a body may come more slowly than [`GATEWAY_MIN_RATE`].
pub const GATEWAY_PACE_AFTER: Duration = Duration::from_secs(5);

/// The least pace of a body, in bytes a second: below, a block takes longer than any reader waits.
pub const GATEWAY_MIN_RATE: u64 = 4096;

/// Redirects within the origin of a gateway that are followed for one request.
pub const GATEWAY_REDIRECTS: usize = 3;

/// The memory of blocks that gateways are sending and no reader waits for, in bytes.
pub const GATEWAY_BODY_BYTES: usize = 96 * 1024 * 1024;

/// The memory of blocks that gateways are sending and readers wait for, in bytes.
pub const GATEWAY_URGENT_BODY_BYTES: usize = 32 * 1024 * 1024;

/// Pieces of a CAR that wait to be taken apart: the body is read no faster than its blocks are kept.
pub const GATEWAY_PIECES: usize = 16;

/// How long a CAR may stand still before its blocks are asked for one by one.
pub const GATEWAY_CAR_STALL: Duration = Duration::from_secs(2);

/// Blocks that a CAR may announce before they come: a level of the widest directories, in some 100 MiB.
pub const MAX_ANNOUNCED_BLOCKS: usize = 1 << 20;

/// What a CAR may hold that does not belong to the DAG, or comes again, in bytes.
pub const MAX_STRAY_BYTES: usize = 8 * 1024 * 1024;

/// Providers of one block that a delegated router may name: more than anybody asks.
pub const MAX_ROUTED_PROVIDERS: usize = 256;

/// The answer of a delegated router, in bytes: as many providers with a dozen addresses each.
pub const MAX_ROUTING_BYTES: usize = 1024 * 1024;

/// One provider in the answer of a delegated router, in bytes.
pub const MAX_ROUTING_RECORD_BYTES: usize = 64 * 1024;

/// How long a delegated router may take in all: it asks a network itself.
pub const ROUTING_ANSWER: Duration = Duration::from_secs(30);
