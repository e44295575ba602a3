//! The inputs of the conformance vectors, made anew: the bytes of `CPython`'s `random.Random(seed).randbytes`, `ChaCha20`
//! keystreams, and the trees of files that the vectors name.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest, Sha256};

const MIB: usize = 1 << 20;
const KIB_256: usize = 256 << 10;

/// MT19937 as `CPython` seeds it from a whole number.
struct MersenneTwister {
    state: [u32; 624],
    at: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> MersenneTwister {
        let mut state = [0_u32; 624];
        state[0] = 19_650_218;
        for index in 1..624 {
            let last = state[index - 1];
            state[index] = 1_812_433_253_u32.wrapping_mul(last ^ last >> 30).wrapping_add(index as u32);
        }
        // The seed is an array of one word.
        let mut index = 1;
        for _ in 0..624 {
            let last = state[index - 1];
            state[index] = (state[index] ^ (last ^ last >> 30).wrapping_mul(1_664_525)).wrapping_add(seed);
            index += 1;
            if index == 624 {
                state[0] = state[623];
                index = 1;
            }
        }
        for _ in 0..623 {
            let last = state[index - 1];
            state[index] = (state[index] ^ (last ^ last >> 30).wrapping_mul(1_566_083_941)).wrapping_sub(index as u32);
            index += 1;
            if index == 624 {
                state[0] = state[623];
                index = 1;
            }
        }
        state[0] = 0x8000_0000;
        MersenneTwister { state, at: 624 }
    }

    fn next(&mut self) -> u32 {
        if self.at == 624 {
            for index in 0..624 {
                let joined = self.state[index] & 0x8000_0000 | self.state[(index + 1) % 624] & 0x7fff_ffff;
                let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[index] = self.state[(index + 397) % 624] ^ joined >> 1 ^ odd;
            }
            self.at = 0;
        }
        let mut word = self.state[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }
}

/// `random.Random(seed).randbytes(len)`.
pub fn random_bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut generator = MersenneTwister::new(seed);
    let mut bytes = Vec::with_capacity(len + 4);
    while bytes.len() + 4 <= len {
        bytes.extend_from_slice(&generator.next().to_le_bytes());
    }
    let rest = len - bytes.len();
    if rest > 0 {
        let word = generator.next() >> (32 - 8 * rest);
        bytes.extend_from_slice(&word.to_le_bytes()[..rest]);
    }
    bytes
}

/// The `ChaCha20` keystream of a key that is the SHA-256 of a seed, with a nonce of zeros, as a reader of `len` bytes.
pub struct Keystream {
    stream: cidfs_keystream::Keystream,
    left: u64,
}

impl Keystream {
    pub fn new(seed: &str, len: u64) -> Keystream {
        Keystream { stream: cidfs_keystream::Keystream::new(Sha256::digest(seed).into()), left: len }
    }
}

impl Read for Keystream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // Whole words, but at the end: the generator throws away what it gives of a word and is not asked for.
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let len = if len as u64 == self.left || len < 4 { len } else { len / 4 * 4 };
        self.stream.fill(&mut buffer[..len]);
        self.left -= len as u64;
        Ok(len)
    }
}

fn text(len: usize) -> Vec<u8> {
    let lines =
        (0..).flat_map(|number| format!("line {number:08} the quick brown fox jumps over the lazy dog\n").into_bytes());
    lines.take(len).collect()
}

/// The files of the vectors, by name.
pub fn file(name: &str) -> Option<Vec<u8>> {
    Some(match name {
        "f00_empty" => Vec::new(),
        "f01_one" => random_bytes(1001, 1),
        "f02_32" => random_bytes(1002, 32),
        "f03_33" => random_bytes(1003, 33),
        "f04_256k_m1" => random_bytes(1004, KIB_256 - 1),
        "f05_256k" => random_bytes(1005, KIB_256),
        "f06_256k_p1" => random_bytes(1006, KIB_256 + 1),
        "f07_1m_m1" => random_bytes(1007, MIB - 1),
        "f08_1m" => random_bytes(1008, MIB),
        "f09_1m_p1" => random_bytes(1009, MIB + 1),
        "f10_3333333" => random_bytes(1010, 3_333_333),
        "f11_10m_p7" => random_bytes(1011, 10 * MIB + 7),
        "f12_174x256k" => random_bytes(1012, 174 * KIB_256),
        "f13_174x256k_p1" => random_bytes(1013, 174 * KIB_256 + 1),
        "f14_zeros_5m" => vec![0; 5 * MIB],
        "f15_text" => text(600_000),
        "f16_1234567" => random_bytes(1016, 1_234_567),
        _ => return None,
    })
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let mtime = TimeSpec::new(seconds, nanoseconds);
    utimensat(nix::fcntl::AT_FDCWD, path, &TimeSpec::new(0, 0), &mtime, UtimensatFlags::NoFollowSymlink).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Sets what an entry's metadata is to be; a mode of `None` leaves it alone.
pub fn set_metadata(path: &Path, mode: Option<u32>, seconds: i64, nanoseconds: i64) {
    if let Some(mode) = mode {
        set_mode(path, mode);
    }
    set_times(path, seconds, nanoseconds);
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn hex_name(number: usize, len: usize) -> String {
    let digest = Sha256::digest(format!("name{number}"));
    hex(&digest)[..len].to_owned()
}

fn small(dir: &Path) {
    write(&dir.join("a.txt"), b"hello a\n");
    write(&dir.join("b.bin"), &random_bytes(2001, 5000));
    write(&dir.join(".hidden"), b"secret\n");
    write(&dir.join("sub/c.txt"), b"");
    fs::create_dir_all(dir.join("sub/empty")).unwrap();
    write(&dir.join("sub/deep/d/e/f.txt"), &random_bytes(2002, 300_000));
    for name in ["Z", "z", "10", "9"] {
        write(&dir.join(name), name.as_bytes());
    }
}

fn unicode(dir: &Path) {
    let long_ascii = "x".repeat(255);
    let long_accents = "\u{e9}".repeat(127);
    let names = [
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{65e5}\u{672c}\u{8a9e}.txt",
        "emoji \u{1f600}",
        " leading",
        "trailing ",
        "new\nline",
        "-dash",
        "FF",
        "00",
        "%41",
        "a+b&c=d?e#f",
        "back\\slash",
        &long_ascii,
        &long_accents,
        "...",
        "tab\there",
        "quote'\"",
        "\u{10348}",
        "\u{ffee}",
    ];
    for (number, name) in names.iter().enumerate() {
        write(&dir.join(name), format!("{number}\n").as_bytes());
    }
}

fn symlinks(dir: &Path) {
    write(&dir.join("target.txt"), b"target\n");
    write(&dir.join("dir/inner.txt"), b"inner\n");
    let long = "t".repeat(1000);
    for (name, target) in [
        ("rel", "target.txt"),
        ("abs", "/etc/hostname"),
        ("dangling", "no/such/file"),
        ("todir", "dir"),
        ("dir/up", "../target.txt"),
        ("self", "self"),
        ("uni-\u{e9}", "\u{65e5}\u{672c}"),
        ("longtarget", &long),
        ("dot", "."),
        ("slash", "dir/"),
    ] {
        symlink(target, dir.join(name)).unwrap();
    }
}

fn metadata(dir: &Path) {
    for (name, mode, seconds, nanoseconds) in [
        ("f_0644", 0o644, 1_700_000_000, 0),
        ("f_0600_ns", 0o600, 1_700_000_000, 123_456_789),
        ("f_0755_ns1", 0o755, 1_600_000_000, 1),
        ("f_epoch", 0o644, 0, 0),
        ("f_neg", 0o640, -1, 0),
        ("f_neg_ns", 0o640, -86_400, 500_000_000),
        ("f_suid", 0o4755, 1_500_000_000, 999_999_999),
        ("f_sticky", 0o1777, 1, 0),
        ("f_0000", 0o000, 4_294_967_296, 0),
        ("f_y2038", 0o444, 2_147_483_647, 0),
    ] {
        let path = dir.join(name);
        write(&path, name.as_bytes());
        set_mode(&path, mode);
        set_times(&path, seconds, nanoseconds);
    }
    for (name, content, mode, seconds, nanoseconds) in [
        ("big", random_bytes(2004, 300_001), 0o751, 1_234_567_890, 987_654_321),
        ("sub/x", b"x".to_vec(), 0o600, 1_111_111_111, 0),
    ] {
        let path = dir.join(name);
        write(&path, &content);
        set_mode(&path, mode);
        set_times(&path, seconds, nanoseconds);
    }
    symlink("f_0644", dir.join("link")).unwrap();
    set_times(&dir.join("link"), 1_222_222_222, 5);
    set_mode(&dir.join("sub"), 0o2770);
    set_times(&dir.join("sub"), 1_333_333_333, 0);
    set_mode(dir, 0o711);
    set_times(dir, 1_444_444_444, 42);
}

fn nested(dir: &Path) {
    for sub in ["alpha", "beta"] {
        for number in 0..40 {
            write(&dir.join(format!("{sub}/e{number:03}")), format!("{sub} {number}\n").as_bytes());
        }
    }
    for number in 0..300 {
        let content = random_bytes(3000 + number as u32, number);
        write(&dir.join("wide").join(hex_name(9000 + number, 16)), &content);
    }
    write(&dir.join("plain.txt"), b"plain\n");
}

/// A directory of files named by number and a hash, so many of each length.
fn fixed_names(dir: &Path, lengths: &[(usize, usize)]) {
    fs::create_dir_all(dir).unwrap();
    let lengths = lengths.iter().flat_map(|(count, len)| std::iter::repeat_n(*len, *count));
    for (number, len) in lengths.enumerate() {
        let name = format!("{number:06}{}", hex_name(number, 64));
        fs::write(dir.join(&name[..len]), b"x").unwrap();
    }
}

/// Makes the input `name` of the vectors at `path`.
pub fn make(name: &str, path: &Path) {
    if let Some(content) = file(name) {
        return write(path, &content);
    }
    fs::create_dir_all(path).unwrap();
    match name {
        "d00_empty" => {}
        "d01_small" => small(path),
        "d02_unicode" => unicode(path),
        "d03_symlinks" => symlinks(path),
        "d04_meta" => metadata(path),
        "d05_deep" => {
            let levels: Vec<String> = (0..40).map(|level| format!("level{level:02}")).collect();
            write(&path.join(levels.join("/")).join("bottom.txt"), b"bottom\n");
        }
        "d06_hamt3000" => {
            for number in 0..3000 {
                let name = format!("{number:04}-{}", hex_name(number, 55));
                fs::write(path.join(name), format!("{number}\n")).unwrap();
            }
        }
        "d07_hamt12000" => (0..12_000).for_each(|number| fs::write(path.join(hex_name(number, 10)), b"").unwrap()),
        "d08_links_eq" => fixed_names(path, &[(4096, 30)]),
        "d09_links_p1" => fixed_names(path, &[(4033, 31)]),
        "d10_block_eq" => fixed_names(path, &[(4765, 11), (1, 21)]),
        "d11_block_p1" => fixed_names(path, &[(4765, 11), (1, 22)]),
        "d12_nested" => nested(path),
        "d13_dupes" => {
            let content = random_bytes(2006, 70_000);
            for name in ["one", "two", "s1/one", "s2/one", "s1/t/one", "s2/t/one"] {
                write(&path.join(name), &content);
            }
        }
        _ => panic!("no generator for the input {name}"),
    }
}
