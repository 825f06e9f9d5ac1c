//! Writes a struct or map as fields: each top-level entry as a JSON text of its own.

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{self, Impossible, SerializeMap, SerializeStruct, Serializer};

use crate::error::{Error, Kind};

/// A value's fields in the order in which it was serialised: all texts in one buffer, which is cut where one is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded {
    buffer: Bytes,
    /// Name, and where its text ends in the buffer.
    ends: Vec<(Bytes, usize)>,
    /// The places of the names in their order. Empty: they are few, and looked at one after the other.
    sorted: Vec<usize>,
}

/// More names than a struct has; a map may have thousands, and each is looked for in another value's.
const MANY: usize = 32;

impl Encoded {
    fn new(buffer: Bytes, ends: Vec<(Bytes, usize)>) -> Self {
        let mut sorted = Vec::new();
        if ends.len() > MANY {
            sorted.extend(0..ends.len());
            sorted.sort_by(|one, other| ends[*one].0.cmp(&ends[*other].0));
        }
        Self { buffer, ends, sorted }
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        if self.sorted.is_empty() {
            return self.iter().find(|(n, _)| *n == name).map(|(_, text)| text);
        }
        let place = self.sorted.binary_search_by(|at| self.ends[*at].0.as_ref().cmp(name)).ok()?;
        Some(self.text(self.sorted[place]))
    }

    /// The same, looked for first where another value of the type has it.
    pub(crate) fn get_near(&self, at: usize, name: &[u8]) -> Option<&[u8]> {
        match self.ends.get(at) {
            Some((there, _)) if there == name => Some(self.text(at)),
            _ => self.get(name),
        }
    }

    fn text(&self, at: usize) -> &[u8] {
        let from = if at == 0 { 0 } else { self.ends[at - 1].1 };
        &self.buffer[from..self.ends[at].1]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &[u8])> {
        let mut from = 0;
        self.ends.iter().map(move |(name, end)| (name, &self.buffer[std::mem::replace(&mut from, *end)..*end]))
    }

    /// One of its texts, to be kept.
    pub(crate) fn keep(&self, text: &[u8]) -> Bytes {
        self.buffer.slice_ref(text)
    }
}

/// Most sessions have room in it, and the allocator keeps blocks up to this size at hand.
const ROOM: usize = 1024;

/// Serialises a value into fields.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Encoded, Error> {
    let writer = value.serialize(FieldSerializer).map_err(|problem| match problem {
        Problem::Shape => Error::new(
            Kind::Field,
            format!("{} is no struct or map, so it cannot be a session's state", std::any::type_name::<T>()),
        ),
        Problem::Field(name) => Error::field(&name, "cannot be written as JSON"),
        Problem::Name => Error::new(Kind::Field, "a field name that is no text cannot be stored"),
        Problem::Custom => Error::new(Kind::Field, format!("{} refused to be serialised", std::any::type_name::<T>())),
    })?;
    Ok(writer.finish())
}

/// Why a value cannot be written. Holds no values: they are the visitor's.
#[derive(Debug)]
enum Problem {
    Shape,
    Name,
    Field(Vec<u8>),
    Custom,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the value cannot be written as fields")
    }
}

impl std::error::Error for Problem {}

impl ser::Error for Problem {
    fn custom<M: std::fmt::Display>(_message: M) -> Self {
        Self::Custom
    }
}

#[derive(Default)]
struct FieldWriter {
    buffer: Vec<u8>,
    ends: Vec<(Bytes, usize)>,
    next: Bytes,
}

impl FieldWriter {
    fn value<V: Serialize + ?Sized>(&mut self, name: Bytes, value: &V) -> Result<(), Problem> {
        let written = serde_json::to_writer(&mut self.buffer, value);
        written.map_err(|_| Problem::Field(name.to_vec()))?;
        self.ends.push((name, self.buffer.len()));
        Ok(())
    }

    fn finish(self) -> Encoded {
        Encoded::new(self.buffer.into(), self.ends)
    }
}

impl SerializeStruct for FieldWriter {
    type Ok = Self;
    type Error = Problem;

    fn serialize_field<V: Serialize + ?Sized>(&mut self, name: &'static str, value: &V) -> Result<(), Problem> {
        self.value(Bytes::from_static(name.as_bytes()), value)
    }

    fn end(self) -> Result<Self, Problem> {
        Ok(self)
    }
}

impl SerializeMap for FieldWriter {
    type Ok = Self;
    type Error = Problem;

    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), Problem> {
        self.next = match serde_json::to_value(key) {
            Ok(serde_json::Value::String(name)) => name.into(),
            // As serde_json writes the keys of a map.
            Ok(serde_json::Value::Number(number)) => number.to_string().into(),
            Ok(serde_json::Value::Bool(flag)) => flag.to_string().into(),
            _ => return Err(Problem::Name),
        };
        Ok(())
    }

    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), Problem> {
        let name = std::mem::take(&mut self.next);
        self.value(name, value)
    }

    fn end(self) -> Result<Self, Problem> {
        Ok(self)
    }
}

struct FieldSerializer;

type No = Impossible<FieldWriter, Problem>;

macro_rules! refuse {
    ($($method:ident($($argument:ty),*) -> $output:ty;)*) => {
        $(fn $method(self $(, _: $argument)*) -> Result<$output, Problem> { Err(Problem::Shape) })*
    };
}

impl Serializer for FieldSerializer {
    type Ok = FieldWriter;
    type Error = Problem;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = FieldWriter;
    type SerializeStruct = FieldWriter;
    type SerializeStructVariant = No;

    fn serialize_struct(self, _: &'static str, fields: usize) -> Result<FieldWriter, Problem> {
        Ok(FieldWriter { buffer: Vec::with_capacity(ROOM), ends: Vec::with_capacity(fields), next: Bytes::new() })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<FieldWriter, Problem> {
        Ok(FieldWriter::default())
    }

    fn serialize_newtype_struct<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &V,
    ) -> Result<FieldWriter, Problem> {
        value.serialize(self)
    }

    fn serialize_some<V: Serialize + ?Sized>(self, _: &V) -> Result<FieldWriter, Problem> {
        Err(Problem::Shape)
    }

    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &V,
    ) -> Result<FieldWriter, Problem> {
        Err(Problem::Shape)
    }

    refuse! {
        serialize_bool(bool) -> FieldWriter;
        serialize_i8(i8) -> FieldWriter;
        serialize_i16(i16) -> FieldWriter;
        serialize_i32(i32) -> FieldWriter;
        serialize_i64(i64) -> FieldWriter;
        serialize_u8(u8) -> FieldWriter;
        serialize_u16(u16) -> FieldWriter;
        serialize_u32(u32) -> FieldWriter;
        serialize_u64(u64) -> FieldWriter;
        serialize_f32(f32) -> FieldWriter;
        serialize_f64(f64) -> FieldWriter;
        serialize_char(char) -> FieldWriter;
        serialize_str(&str) -> FieldWriter;
        serialize_bytes(&[u8]) -> FieldWriter;
        serialize_none() -> FieldWriter;
        serialize_unit() -> FieldWriter;
        serialize_unit_struct(&'static str) -> FieldWriter;
        serialize_unit_variant(&'static str, u32, &'static str) -> FieldWriter;
        serialize_seq(Option<usize>) -> No;
        serialize_tuple(usize) -> No;
        serialize_tuple_struct(&'static str, usize) -> No;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No;
    }
}
