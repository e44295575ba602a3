//! The key of a private swarm: the file `swarm.key`, in the format that kubo reads and writes.
//!
//! Three lines: what it is, how the key is written, the key of 32 bytes. Every byte between two members goes through a
//! cipher with this key, so whoever lacks it cannot even begin to talk. It hides nothing from members.

use libp2p::pnet::PreSharedKey;
use multibase::Base;

/// What the first line says.
const HEAD: &str = "/key/swarm/psk/1.0.0/";

/// Reads a key; the error says what is wrong with the file, and nothing of its content.
pub fn parse(file: &[u8]) -> Result<PreSharedKey, &'static str> {
    let (head, rest) = line(file).ok_or("it has less than three lines")?;
    if head != HEAD.as_bytes() {
        return Err("its first line is not /key/swarm/psk/1.0.0/");
    }
    let (encoding, rest) = line(rest).ok_or("it has less than three lines")?;
    let text = || std::str::from_utf8(rest).map(str::trim).map_err(|_| "its key is not text");
    let key = match encoding {
        b"/base16/" => Base::Base16Lower.decode(text()?.to_lowercase()).map_err(|_| "its key is not base16")?,
        b"/base64/" => Base::Base64Pad.decode(text()?).map_err(|_| "its key is not base64")?,
        b"/bin/" => rest.get(..32).unwrap_or(rest).to_vec(),
        _ => return Err("its second line is none of /base16/, /base64/ and /bin/"),
    };
    let key = <[u8; 32]>::try_from(key).map_err(|_| "its key is not 32 bytes long")?;
    Ok(PreSharedKey::new(key))
}

/// The first line without its end, and what follows.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((bytes[..end].trim_ascii_end(), &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_kubo_are_read_in_every_encoding() {
        let hex = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let bytes: Vec<u8> = Base::Base16Lower.decode(hex).unwrap();
        let expected = PreSharedKey::new(bytes.clone().try_into().unwrap());
        let text = format!("{HEAD}\n/base16/\n{hex}\n");
        assert!(parse(text.as_bytes()) == Ok(expected));
        assert!(parse(text.replace('\n', "\r\n").as_bytes()) == Ok(expected));
        assert!(parse(text.trim_end().as_bytes()) == Ok(expected));
        let base64 = format!("{HEAD}\n/base64/\n{}", Base::Base64Pad.encode(&bytes));
        assert!(parse(base64.as_bytes()) == Ok(expected));
        let mut bin = format!("{HEAD}\n/bin/\n").into_bytes();
        bin.extend(&bytes);
        assert!(parse(&bin) == Ok(expected));
        assert!(parse(expected.to_key_file().as_bytes()) == Ok(expected));
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        for text in [
            "",
            "secret",
            "/key/swarm/psk/2.0.0/\n/base16/\n00\n",
            "/key/swarm/psk/1.0.0/\n/base16/\n00\n",
            "/key/swarm/psk/1.0.0/\n/base16/\nsecret\n",
            "/key/swarm/psk/1.0.0/\n/base58/\nsecret\n",
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
