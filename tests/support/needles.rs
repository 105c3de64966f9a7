//! Looking for secrets: each in every form it might be written in, all in one pass.

/// A secret in one of its forms.
pub(crate) struct Needle {
    /// Whose form, and which.
    pub(crate) name: String,
    bytes: Vec<u8>,
}

/// What is looked for.
#[derive(Default)]
pub(crate) struct Needles {
    all: Vec<Needle>,
    /// By the first two bytes: which begin so.
    begins: Vec<Vec<u16>>,
}

impl Needles {
    /// Adds these very bytes.
    pub(crate) fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        assert!(bytes.len() >= 8, "too short to be there by design only");
        self.begins.resize_with(1 << 16, Vec::new);
        let number = u16::try_from(self.all.len()).unwrap();
        self.begins[usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))].push(number);
        self.all.push(Needle { name: name.into(), bytes });
    }

    /// Adds every part of `length` bytes that begins at a multiple of `step`.
    pub(crate) fn add_parts(&mut self, name: &str, secret: &[u8], length: usize, step: usize) {
        for (number, part) in secret.windows(length).step_by(step).enumerate() {
            self.add(format!("{name} from byte {}", number * step), part);
        }
    }

    /// The names of all that stand in `hay`, each once.
    pub(crate) fn found_in(&self, hay: &[u8]) -> Vec<&str> {
        let mut found = vec![false; self.all.len()];
        for (at, pair) in hay.windows(2).enumerate() {
            for number in &self.begins[usize::from(u16::from_le_bytes([pair[0], pair[1]]))] {
                let number = usize::from(*number);
                found[number] |= hay[at..].starts_with(&self.all[number].bytes);
            }
        }
        self.all.iter().zip(found).filter(|(_, found)| *found).map(|(needle, _)| &*needle.name).collect()
    }
}

impl Needles {
    /// Adds a secret in every form it might be written in.
    pub(crate) fn add_forms(&mut self, name: &str, secret: &[u8]) {
        let list = |between: &str| secret.iter().map(u8::to_string).collect::<Vec<_>>().join(between);
        let hex = |upper: bool| -> String {
            secret.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
        };
        let url = |upper: bool| -> String {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let coded = |byte: u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
            secret.iter().map(|&byte| if is_plain(byte) { char::from(byte).into() } else { coded(byte) }).collect()
        };
        let mut forms = vec![
            ("as it is", secret.to_vec()),
            ("reversed", secret.iter().rev().copied().collect()),
            ("in hexadecimal", hex(false).into()),
            ("in HEXADECIMAL", hex(true).into()),
            ("as a list", list(", ").into()),
            ("as a JSON list", list(",").into()),
            ("in a URL", url(true).into()),
            ("in a url", url(false).into()),
        ];
        // Three bytes are four digits, so it depends on what stands before which digits they are.
        for skipped in 0..3 {
            let whole = &secret[skipped..];
            let whole = &whole[..whole.len() / 3 * 3];
            forms.push(("in base64", base64(whole, b"+/")));
            forms.push(("in base64 of URLs", base64(whole, b"-_")));
        }
        forms.sort_by(|one, other| one.1.cmp(&other.1));
        forms.dedup_by(|one, other| one.1 == other.1);
        forms.into_iter().for_each(|(form, bytes)| self.add(format!("{name} {form}"), bytes));
    }
}

fn base64(bytes: &[u8], last: &[u8; 2]) -> Vec<u8> {
    let digit = |value: u32| match value & 63 {
        62 => last[0],
        63 => last[1],
        value => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[value as usize],
    };
    let of_three = |three: &[u8]| {
        let value = three.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|bits| digit(value >> bits))
    };
    bytes.chunks_exact(3).flat_map(of_three).collect()
}

#[test]
fn a_secret_is_found_in_each_of_its_forms_wherever_it_stands() {
    let mut needles = Needles::default();
    needles.add_forms("it", b"hunter?2/hunter");
    for hay in [
        "a hunter?2/hunter",
        "68756e7465723f322f68756e746572",
        "[104, 117, 110, 116, 101, 114, 63, 50, 47, 104, 117, 110, 116, 101, 114]",
        "?password=hunter%3F2%2Fhunter",
        // `base64` of it after nothing, `:` and `me:`.
        "aHVudGVyPzIvaHVudGVy",
        "Omh1bnRlcj8yL2h1bnRlcg==",
        "bWU6aHVudGVyPzIvaHVudGVy",
        "bTpodW50ZXI/Mi9odW50ZXI=",
    ] {
        assert!(!needles.found_in(hay.as_bytes()).is_empty(), "{hay}");
    }
    assert!(needles.found_in(b"hunter?2/hunte").is_empty());
}
