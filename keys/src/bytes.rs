//! Newtypes over fixed byte strings: hex for people, byte strings for the wire.

use core::fmt;
use core::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};

/// Says why a text is not the hex form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: expected {expected} hex digits, got {text:?}; copy the whole id")]
pub struct HexError {
    /// Name of the type that was being read.
    pub name: &'static str,
    /// Number of hex digits that the type has.
    pub expected: usize,
    /// The text as given, cut to 80 characters.
    pub text: String,
}

/// Formats bytes as lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Reads exactly `N` bytes of hex.
///
/// # Errors
/// [`HexError`] when the length or a digit is wrong.
pub fn from_hex<const N: usize>(name: &'static str, text: &str) -> Result<[u8; N], HexError> {
    let mut out = [0u8; N];
    hex::decode_to_slice(text, &mut out).map_err(|_| HexError {
        name,
        expected: N.saturating_mul(2),
        text: text.chars().take(80).collect(),
    })?;
    Ok(out)
}

struct BytesVisitor<const N: usize> {
    name: &'static str,
    marker: PhantomData<[u8; N]>,
}

impl<const N: usize> Visitor<'_> for BytesVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {N} bytes", self.name)
    }

    fn visit_bytes<E: Error>(self, v: &[u8]) -> Result<Self::Value, E> {
        <[u8; N]>::try_from(v).map_err(|_| E::invalid_length(v.len(), &self))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Self::Value, E> {
        from_hex::<N>(self.name, v).map_err(E::custom)
    }
}

/// Reads `N` bytes: a byte string from a binary format, hex from a human-readable one.
///
/// # Errors
/// The deserializer's error when the input has another shape or length.
pub fn visit<'de, const N: usize, D: Deserializer<'de>>(
    name: &'static str,
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    let visitor = BytesVisitor::<N> { name, marker: PhantomData };
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(visitor)
    } else {
        deserializer.deserialize_bytes(visitor)
    }
}

/// Declares a newtype over a fixed byte string with hex text, total order and strict serde forms.
#[macro_export]
macro_rules! bytes_newtype {
    ($(#[$meta:meta])* $name:ident, $len:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Number of bytes.
            pub const LEN: usize = $len;

            /// Wraps raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Returns the raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Returns the first eight hex digits, for logs and tables.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(&$crate::__private::to_hex(&self.0))
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl ::core::str::FromStr for $name {
            type Err = $crate::HexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::__private::from_hex::<{ $len }>(stringify!($name), text).map(Self)
            }
        }

        impl $crate::__private::serde::Serialize for $name {
            fn serialize<S: $crate::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(&$crate::__private::to_hex(&self.0))
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> $crate::__private::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::__private::visit::<{ $len }, D>(stringify!($name), deserializer).map(Self)
            }
        }
    };
}
