//! Reads a struct or map from fields: the type's own ones, laid over its serialised default.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::State;
use super::encode::{Encoded, encode};
use crate::error::{Error, Kind};
use crate::fields::Fields;

/// What serde asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A struct of these names, aliases included.
    Struct(&'static [&'static str]),
    /// A map, or a struct with a flattened field: it gets all fields.
    Map,
}

/// Reads a value and says what serde asked for.
pub(super) fn decode<T: State>(fields: &Fields) -> Result<(T, Shape), Error> {
    let default = OnceCell::new();
    let reader = Reader {
        fields,
        default: &default,
        make_default: || encode(&T::default()),
        last: Cell::default(),
        skipped: RefCell::default(),
        present: RefCell::default(),
        absent_as_null: Cell::new(true),
        shape: Cell::new(None),
    };
    loop {
        match T::deserialize(&reader) {
            Ok(value) if reader.prefers_another_name(&value)? => {}
            Ok(value) => return Ok((value, reader.shape.get().unwrap_or(Shape::Map))),
            Err(problem) if reader.can_mend(&problem) => {}
            Err(problem) => return Err(reader.explain::<T>(problem)),
        }
    }
}

/// What was read last, and what to leave out at the next try.
struct Reader<'a> {
    fields: &'a Fields,
    /// Made only where a field is missing.
    default: &'a OnceCell<Encoded>,
    make_default: fn() -> Result<Encoded, Error>,
    last: Cell<&'a [u8]>,
    skipped: RefCell<Vec<&'a [u8]>>,
    /// Names that turned out to be the present ones of fields that are stored under old names too.
    present: RefCell<Vec<&'a [u8]>>,
    /// Whether a field that is explicitly absent is shown as null. If null does not fit, it is left out.
    absent_as_null: Cell<bool>,
    shape: Cell<Option<Shape>>,
}

impl<'a> Reader<'a> {
    /// Whether another try can do better. Each mend leaves out more, so the tries end.
    fn can_mend(&self, problem: &Problem) -> bool {
        let last = self.last.get();
        match problem {
            // Two names of one field: stored under an old name and a new one, or stored and in the default. What
            // was shown first counts, and the order of showing is stored, then stored under old names, then default.
            Problem::Duplicate if !self.is_skipped(last) => {
                self.skipped.borrow_mut().push(last);
                true
            }
            Problem::Value | Problem::Custom
                if self.absent_as_null.get() && self.fields.get(last).is_some_and(|value| value.is_empty()) =>
            {
                self.absent_as_null.set(false);
                true
            }
            _ => false,
        }
    }

    /// Whether a field was left out under the name that the type writes, in favour of an old name. Once at most.
    fn prefers_another_name<T: State>(&self, value: &T) -> Result<bool, Error> {
        if !self.skipping() || !self.present.borrow().is_empty() {
            return Ok(false);
        }
        let written = encode(value)?;
        let skipped = std::mem::take(&mut *self.skipped.borrow_mut());
        let (present, old) =
            skipped.into_iter().partition(|name| self.fields.get(name).is_some() && written.get(name).is_some());
        *self.present.borrow_mut() = present;
        *self.skipped.borrow_mut() = old;
        let again = !self.present.borrow().is_empty();
        Ok(again)
    }

    fn explain<T>(&self, problem: Problem) -> Error {
        let (last, state) = (self.last.get(), std::any::type_name::<T>());
        match problem {
            Problem::Shape => {
                Error::new(Kind::Field, format!("{state} is no struct or map, so it cannot be a session's state"))
            }
            Problem::Missing(name) => {
                Error::field(name.as_bytes(), "is missing, and neither the default nor serde fills it")
            }
            Problem::Default(error) => error,
            Problem::Json => Error::field(last, "is not valid JSON"),
            Problem::Value | Problem::Custom | Problem::Duplicate => {
                Error::field(last, format!("does not fit its type in {state}"))
            }
        }
    }

    fn is_skipped(&self, name: &[u8]) -> bool {
        self.skipped.borrow().contains(&name)
    }

    fn default(&self) -> Result<&'a Encoded, Problem> {
        if let Some(default) = self.default.get() {
            return Ok(default);
        }
        let made = (self.make_default)().map_err(Problem::Default)?;
        Ok(self.default.get_or_init(|| made))
    }

    /// The pairs to show: for a struct its own names, for a map all.
    fn pairs(&self, shape: Shape) -> Result<Vec<Pair<'a>>, Problem> {
        let mut pairs = Vec::with_capacity(16);
        let mut show = |name: &'a [u8], value: &'a [u8]| {
            if self.is_skipped(name) {
                return;
            }
            if !value.is_empty() {
                pairs.push((name, value));
            } else if self.absent_as_null.get() && matches!(shape, Shape::Struct(_)) {
                pairs.push((name, b"null"));
            }
        };
        match shape {
            Shape::Map => self.fields.iter().for_each(|(name, value)| show(name, value)),
            Shape::Struct(names) => {
                let mut missing = false;
                for name in names {
                    match self.fields.get(name.as_bytes()) {
                        Some(value) => show(name.as_bytes(), value),
                        None => missing = true,
                    }
                }
                if !missing && !self.skipping() && self.present.borrow().is_empty() {
                    return Ok(pairs);
                }
            }
        }
        let default = self.default()?;
        let is_own = |name: &[u8]| match shape {
            Shape::Struct(names) => names.iter().any(|n| n.as_bytes() == name),
            Shape::Map => true,
        };
        if let Shape::Struct(_) = shape {
            // Old names after the present ones, so that what is stored under the present name counts. Only the
            // present name is ever stored as explicitly absent.
            let is_present = |name: &[u8]| {
                default.get(name).is_some()
                    || self.present.borrow().contains(&name)
                    || self.fields.get(name).is_some_and(|value| value.is_empty())
            };
            pairs.sort_by_key(|(name, _)| !is_present(name));
        }
        for (name, value) in default.iter() {
            if is_own(name) && self.fields.get(name).is_none() && !self.is_skipped(name) {
                pairs.push((name, value));
            }
        }
        Ok(pairs)
    }

    fn skipping(&self) -> bool {
        !self.skipped.borrow().is_empty()
    }

    fn show<V: Visitor<'a>>(&self, shape: Shape, visitor: V) -> Result<V::Value, Problem> {
        self.shape.set(Some(shape));
        let pairs = self.pairs(shape)?;
        visitor.visit_map(Pairs { pairs: pairs.into_iter(), value: b"", last: &self.last })
    }
}

type Pair<'a> = (&'a [u8], &'a [u8]);

impl<'de> Deserializer<'de> for &Reader<'de> {
    type Error = Problem;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.show(Shape::Struct(names), visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.show(Shape::Map, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.show(Shape::Map, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, Problem> {
        Err(Problem::Shape)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Problem> {
        Err(Problem::Shape)
    }

    fn deserialize_option<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Problem> {
        Err(Problem::Shape)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Problem> {
        Err(Problem::Shape)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Problem> {
        Err(Problem::Shape)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Problem> {
        Err(Problem::Shape)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, _: V) -> Result<V::Value, Problem> {
        Err(Problem::Shape)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf identifier ignored_any
    }
}

struct Pairs<'a, 'r> {
    pairs: std::vec::IntoIter<Pair<'a>>,
    value: &'a [u8],
    last: &'r Cell<&'a [u8]>,
}

impl<'de> MapAccess<'de> for Pairs<'de, '_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        for (name, value) in self.pairs.by_ref() {
            self.last.set(name);
            self.value = value;
            // A name of another program's that is no text belongs to no view.
            if let Ok(text) = std::str::from_utf8(name) {
                return seed.deserialize(Name(text)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        // Checked once as a whole, rather than string by string.
        let text = std::str::from_utf8(self.value).map_err(|_| Problem::Json)?;
        let mut json = serde_json::Deserializer::from_str(text);
        let decoded = seed.deserialize(&mut json).map_err(Problem::of_json)?;
        json.end().map_err(Problem::of_json)?;
        Ok(decoded)
    }
}

/// A field's name as serde may want it: text, or the number or truth value that a map's key type reads from it.
struct Name<'a>(&'a str);

macro_rules! parsed {
    ($($method:ident => $visit:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            visitor.$visit(self.0.parse().map_err(|_| Problem::Value)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Name<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_str(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_enum(de::value::StrDeserializer::new(self.0))
    }

    parsed! {
        deserialize_bool => visit_bool;
        deserialize_i8 => visit_i8;
        deserialize_i16 => visit_i16;
        deserialize_i32 => visit_i32;
        deserialize_i64 => visit_i64;
        deserialize_i128 => visit_i128;
        deserialize_u8 => visit_u8;
        deserialize_u16 => visit_u16;
        deserialize_u32 => visit_u32;
        deserialize_u64 => visit_u64;
        deserialize_u128 => visit_u128;
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// Why a value could not be read. Holds no values: they are the visitor's.
#[derive(Debug)]
enum Problem {
    Shape,
    Json,
    Value,
    Duplicate,
    Missing(&'static str),
    Default(Error),
    Custom,
}

impl Problem {
    fn of_json(error: serde_json::Error) -> Self {
        if error.is_data() { Self::Value } else { Self::Json }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields cannot be read")
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<M: fmt::Display>(_message: M) -> Self {
        Self::Custom
    }

    fn missing_field(name: &'static str) -> Self {
        Self::Missing(name)
    }

    fn duplicate_field(_name: &'static str) -> Self {
        Self::Duplicate
    }
}
