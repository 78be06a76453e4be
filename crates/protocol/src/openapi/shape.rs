//! Schemas in few words.

use serde_json::Value;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, Ref, Schema, SchemaType, Type,
};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};

pub(super) type Shape = RefOr<Schema>;

fn typed(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn done(builder: ObjectBuilder) -> Shape {
    Schema::Object(builder.build()).into()
}

pub(super) fn string() -> Shape {
    done(typed(Type::String))
}

pub(super) fn boolean() -> Shape {
    done(typed(Type::Boolean))
}

pub(super) fn number() -> Shape {
    done(typed(Type::Number))
}

pub(super) fn integer() -> Shape {
    done(typed(Type::Integer))
}

/// A whole number from 0.
pub(super) fn count() -> Shape {
    done(typed(Type::Integer).minimum(Some(0)))
}

/// A whole number within these bounds.
pub(super) fn within(least: Value, most: Option<Value>) -> Shape {
    let number = |value: Value| value.as_i64().map(|value| value as isize);
    let least = number(least);
    let mut builder = typed(Type::Integer);
    builder = builder.minimum(least);
    done(builder.maximum(most.and_then(number)))
}

/// A number of 32 or 64 bits.
pub(super) fn float(format: KnownFormat) -> Shape {
    done(typed(Type::Number).format(Some(SchemaFormat::KnownFormat(format))))
}

/// One of these texts.
pub(super) fn one_of<'a>(choices: impl IntoIterator<Item = &'a str>) -> Shape {
    let choices: Vec<Value> = choices.into_iter().map(Value::from).collect();
    done(typed(Type::String).enum_values(Some(choices)))
}

/// A file in Base64.
pub(super) fn base64(media_type: &str) -> Shape {
    done(typed(Type::String).content_encoding("base64").content_media_type(media_type))
}

/// Any JSON value.
pub(super) fn anything() -> Shape {
    done(ObjectBuilder::new().schema_type(SchemaType::AnyValue))
}

/// An object whose members are not told.
pub(super) fn open() -> Shape {
    done(typed(Type::Object).additional_properties(Some(AdditionalProperties::FreeForm(true))))
}

/// An object whose members are all of one kind.
pub(super) fn map(of: Shape) -> Shape {
    done(typed(Type::Object).additional_properties(Some(AdditionalProperties::RefOr(of))))
}

pub(super) fn list(of: Shape) -> Shape {
    Schema::Array(ArrayBuilder::new().items(of).build()).into()
}

/// A list of one item at least.
pub(super) fn filled(of: Shape) -> Shape {
    Schema::Array(ArrayBuilder::new().items(of).min_items(Some(1)).build()).into()
}

/// A list of exactly so many items, where that is known.
pub(super) fn list_of(of: Shape, size: Option<usize>) -> Shape {
    Schema::Array(ArrayBuilder::new().items(of).min_items(size).max_items(size).build()).into()
}

/// A common schema, or one of a model, by its name.
pub(super) fn named(name: &str) -> Shape {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// Any of these.
pub(super) fn any_of(shapes: impl IntoIterator<Item = Shape>) -> Shape {
    let mut any = AnyOfBuilder::new();
    for shape in shapes {
        any = any.item(shape);
    }
    Schema::AnyOf(any.build()).into()
}

pub(super) fn nullable(shape: Shape) -> Shape {
    any_of([shape, done(typed(Type::Null))])
}

/// A member of an object: its name, its schema, and whether it must be there.
pub(super) type Member<'a> = (&'a str, Shape, Need);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Must,
    May,
}

/// An object with these members; others are allowed.
pub(super) fn object<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Shape {
    done(members_of(typed(Type::Object), members))
}

/// An object with these members and no other.
pub(super) fn closed<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Shape {
    let object = members_of(typed(Type::Object), members);
    done(object.additional_properties(Some(AdditionalProperties::FreeForm(false))))
}

fn members_of<'a>(
    mut object: ObjectBuilder,
    members: impl IntoIterator<Item = Member<'a>>,
) -> ObjectBuilder {
    for (name, shape, need) in members {
        object = object.property(name, shape);
        if need == Need::Must {
            object = object.required(name);
        }
    }
    object
}

/// Says what it is.
pub(super) fn described(shape: Shape, text: &str) -> Shape {
    let text = text.to_owned();
    match shape {
        RefOr::T(Schema::Object(mut object)) => {
            object.description = Some(text);
            RefOr::T(Schema::Object(object))
        }
        RefOr::T(Schema::Array(mut array)) => {
            array.description = Some(text);
            RefOr::T(Schema::Array(array))
        }
        RefOr::T(Schema::AnyOf(mut any)) => {
            any.description = Some(text);
            RefOr::T(Schema::AnyOf(any))
        }
        RefOr::Ref(mut reference) => {
            reference.description = text;
            RefOr::Ref(reference)
        }
        other => other,
    }
}

/// Adds what numbers are counted in, as `x-unit`: JSON Schema has no word for it.
pub(super) fn counted_in(shape: Shape, unit: &str) -> Shape {
    let unit = ExtensionsBuilder::new().add("x-unit", unit).build();
    match shape {
        RefOr::T(Schema::Object(mut object)) => {
            object.extensions = Some(unit);
            RefOr::T(Schema::Object(object))
        }
        other => other,
    }
}
