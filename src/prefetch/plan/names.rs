//! Names of files as Python has them: the order in which it sorts them, and which of them are images.

use std::cmp::Ordering;

/// What torchvision's `ImageFolder` takes for an image: `torchvision.datasets.folder.IMG_EXTENSIONS`.
const IMAGE_EXTENSIONS: [&str; 9] = [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];

/// Compares names, or paths, as Python compares what the system gives it for them: by code points, where a byte that is no
/// UTF-8 stands for one between U+DC80 and U+DCFF.
pub fn compare(one: &[u8], other: &[u8]) -> Ordering {
    if str::from_utf8(one).is_ok() && str::from_utf8(other).is_ok() {
        // UTF-8 sorts by its bytes as by its code points.
        return one.cmp(other);
    }
    code_points(one).cmp(code_points(other))
}

fn code_points(name: &[u8]) -> impl Iterator<Item = u32> {
    name.utf8_chunks().flat_map(|chunk| {
        let escaped = chunk.invalid().iter().map(|byte| 0xdc00 + u32::from(*byte));
        chunk.valid().chars().map(u32::from).chain(escaped)
    })
}

/// Whether `ImageFolder` takes a file of this name for an image.
pub fn is_image(name: &[u8]) -> bool {
    // No other letter than those of ASCII becomes one of an extension when Python makes it small.
    let ends_with = |extension: &str| {
        name.len().checked_sub(extension.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(extension.as_bytes()))
    };
    IMAGE_EXTENSIONS.iter().any(|extension| ends_with(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_python_sorts_them() {
        // sorted(os.listdir(b"…".decode(…))) of these, taken from Python 3.11.
        let sorted: [&[u8]; 9] =
            [b"", b"A", b"a-b", b"a/b", b"a0", "é".as_bytes(), b"\xc3", b"\xff", "\u{e000}".as_bytes()];
        for (index, one) in sorted.iter().enumerate() {
            for (other_index, other) in sorted.iter().enumerate() {
                assert_eq!(compare(one, other), index.cmp(&other_index), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn images_are_known_by_their_names() {
        for name in ["a.jpg", "b.JPEG", ".png", "x.y.WebP", "é.tiff"] {
            assert!(is_image(name.as_bytes()), "{name}");
        }
        for name in ["", "jpg", "a.jpg.txt", "a.jpg ", "a.gif", "x.t\u{130}f"] {
            assert!(!is_image(name.as_bytes()), "{name}");
        }
    }
}
