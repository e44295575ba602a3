//! How CIDs are written for people and programs: in which multibase.

use std::str::FromStr;

use multibase::Base;

use super::Cid;

/// How CIDs are written. The default is the form that every tool takes: base58btc for version 0, base32 for version 1.
///
/// In a base that was chosen, a CIDv0, which has base58btc only, is written as the CIDv1 of the same block; in base58btc it
/// stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CidForm {
    base: Option<Base>,
}

/// The names of the multibase table, for those bases in which a CID is text.
const NAMES: [(&str, Base); 22] = [
    ("base2", Base::Base2),
    ("base8", Base::Base8),
    ("base10", Base::Base10),
    ("base16", Base::Base16Lower),
    ("base16upper", Base::Base16Upper),
    ("base32", Base::Base32Lower),
    ("base32upper", Base::Base32Upper),
    ("base32pad", Base::Base32PadLower),
    ("base32padupper", Base::Base32PadUpper),
    ("base32hex", Base::Base32HexLower),
    ("base32hexupper", Base::Base32HexUpper),
    ("base32hexpad", Base::Base32HexPadLower),
    ("base32hexpadupper", Base::Base32HexPadUpper),
    ("base32z", Base::Base32Z),
    ("base36", Base::Base36Lower),
    ("base36upper", Base::Base36Upper),
    ("base58btc", Base::Base58Btc),
    ("base58flickr", Base::Base58Flickr),
    ("base64", Base::Base64),
    ("base64pad", Base::Base64Pad),
    ("base64url", Base::Base64Url),
    ("base64urlpad", Base::Base64UrlPad),
];

impl CidForm {
    /// `cid` as text.
    pub fn text(self, cid: &Cid) -> String {
        match self.base {
            None => cid.to_string(),
            Some(Base::Base58Btc) => cid.to_text(Base::Base58Btc),
            Some(base) => cid.to_v1().to_text(base),
        }
    }
}

impl FromStr for CidForm {
    type Err = String;

    /// Reads the name of a multibase, or the letter that its texts begin with.
    fn from_str(name: &str) -> Result<CidForm, String> {
        let is_meant = |(known, base): &&(&str, Base)| *known == name || name.chars().eq([base.code()]);
        match NAMES.iter().find(is_meant) {
            Some((_, base)) => Ok(CidForm { base: Some(*base) }),
            None => Err(format!(
                "{name:?} is no multibase for CIDs: there are base32, base36, base58btc, base16, base64url …"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

    #[test]
    fn a_cid_is_written_in_every_base_by_its_name_and_its_letter() {
        let cid: Cid = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku".parse().unwrap();
        let v0: Cid = V0.parse().unwrap();
        for (name, base) in NAMES {
            let form: CidForm = name.parse().unwrap();
            assert_eq!(base.code().to_string().parse(), Ok(form), "{name}");
            let text = form.text(&cid);
            assert!(text.starts_with(base.code()) && text.parse::<Cid>().unwrap() == cid, "{name}: {text}");
            let of_v0 = form.text(&v0).parse::<Cid>().unwrap();
            assert_eq!(of_v0, if name == "base58btc" { v0.clone() } else { v0.to_v1() }, "{name}");
        }
        let plain = CidForm::default();
        assert_eq!((plain.text(&cid), plain.text(&v0)), (cid.to_string(), V0.to_owned()));
        // As other tools write it.
        let form: CidForm = "base58btc".parse().unwrap();
        assert_eq!(form.text(&cid), "zb2rhmy65F3REf8SZp7De11gxtECBGgUKaLdiDj7MCGCHxbDW");
    }

    #[test]
    fn what_is_no_base_is_refused() {
        for name in ["", "base", "base33", "identity", "\0", "32", "bb", "base256emoji"] {
            assert!(name.parse::<CidForm>().is_err(), "{name:?}");
        }
    }
}
