//! Numbers as text, appended without going through the formatter.
//!
//! A head carries several numbers, and a server writes a head for every request.

/// Appends `value` in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, value: u64) {
    push::<10>(out, value);
}

/// Appends `value` in lower-case hexadecimal.
pub(crate) fn push_hex(out: &mut Vec<u8>, value: u64) {
    push::<16>(out, value);
}

/// Digits come out last first: they are appended so, and then turned round.
fn push<const RADIX: u64>(out: &mut Vec<u8>, mut value: u64) {
    let start = out.len();
    loop {
        let digit = (value % RADIX) as u8;
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        value /= RADIX;
        if value == 0 {
            break;
        }
    }
    out[start..].reverse();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_as_the_formatter_writes_them(value: u64) {
            let mut text = b"x".to_vec();
            push_decimal(&mut text, value);
            text.push(b' ');
            push_hex(&mut text, value);
            prop_assert_eq!(String::from_utf8(text).unwrap(), format!("x{value} {value:x}"));
        }
    }

    #[test]
    fn zero_is_one_digit() {
        let mut text = Vec::new();
        push_decimal(&mut text, 0);
        assert_eq!(text, b"0");
    }
}
