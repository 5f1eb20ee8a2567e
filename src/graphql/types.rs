//! The schema's types, as far as the door has to know them: what variables must be, and which fields may be null.

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, InputValueDefinition, Type, TypeKind, TypeSystemDefinition, VariableDefinition,
};
use async_graphql::{Name, Positioned, ServerError, Value, Variables};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// The types of a schema, by name.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<Name, Kind>);

#[derive(Debug)]
enum Kind {
    /// Its own type reads it.
    Scalar,
    Enum(HashSet<Name>),
    Input(HashMap<Name, InputField>),
    Output(HashMap<Name, Type>),
}

#[derive(Debug)]
struct InputField {
    ty: Type,
    required: bool,
}

/// What the variables of a request are, besides right.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Those without any value.
    pub(super) absent: Vec<Name>,
    /// A bit for each that is null, in the order of their definitions.
    pub(super) nulls: u64,
}

impl Types {
    /// The types that a schema's text defines.
    pub(super) fn of(sdl: &str) -> Result<Self, ServerError> {
        let mut types = HashMap::new();
        for definition in parse_schema(sdl)?.definitions {
            if let TypeSystemDefinition::Type(definition) = definition {
                let definition = definition.node;
                types.insert(definition.name.node, Kind::of(definition.kind));
            }
        }
        Ok(Self(types))
    }

    /// The type of a field, unless the schema does not say: those of introspection.
    pub(super) fn field(&self, parent: &str, field: &str) -> Option<&Type> {
        match self.0.get(parent)? {
            Kind::Output(fields) => fields.get(field),
            _ => None,
        }
    }

    /// Refuses variables that are not what the operation says they are (GraphQL §6.1.2), before anything is executed.
    /// Those that have a default and no value get it, for async-graphql (7.2.1) does not ask for it in `@skip` and `@include`.
    pub(super) fn check(
        &self,
        definitions: &[Positioned<VariableDefinition>],
        variables: &mut Variables,
    ) -> Result<Given, ServerError> {
        let mut given = Given::default();
        for (index, definition) in definitions.iter().enumerate() {
            let VariableDefinition {
                name,
                var_type,
                default_value,
                ..
            } = &definition.node;
            let at = Place {
                name: name.node.as_str(),
                within: None,
            };
            let checked = match (variables.get(&name.node), default_value) {
                (Some(value), _) => {
                    if *value == Value::Null {
                        given.nulls |= bit(index);
                    }
                    self.fits(value, &var_type.node, &at)
                }
                (None, Some(default)) => {
                    variables.insert(name.node.clone(), default.node.clone());
                    Ok(())
                }
                (None, None) if var_type.node.nullable => {
                    given.absent.push(name.node.clone());
                    Ok(())
                }
                (None, None) => Err(format!(
                    "Variable ${at} of type {} is missing.",
                    var_type.node
                )),
            };
            checked.map_err(|message| ServerError::new(message, Some(definition.pos)))?;
        }
        Ok(given)
    }

    fn fits(&self, value: &Value, ty: &Type, at: &Place<'_>) -> Result<(), String> {
        let name = match (value, &ty.base) {
            (Value::Null, _) if ty.nullable => return Ok(()),
            (Value::Null, _) => return Err(refused(at, ty)),
            (Value::List(items), BaseType::List(item)) => {
                return items
                    .iter()
                    .try_for_each(|value| self.fits(value, item, at));
            }
            // One stands for a list of one.
            (value, BaseType::List(item)) => return self.fits(value, item, at),
            (_, BaseType::Named(name)) => name,
        };
        let fits = match (name.as_str(), value) {
            ("Int", Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            ("ID", Value::Number(n)) => n.is_i64() || n.is_u64(),
            ("ID" | "String", Value::String(_))
            | ("Boolean", Value::Boolean(_))
            | ("Float", Value::Number(_)) => true,
            ("Int" | "ID" | "String" | "Boolean" | "Float", _) => false,
            _ => match (self.0.get(name), value) {
                (Some(Kind::Enum(names)), Value::String(value)) => names.contains(value.as_str()),
                (Some(Kind::Enum(names)), Value::Enum(value)) => names.contains(value),
                (Some(Kind::Input(fields)), Value::Object(object)) => {
                    return self.object(fields, object, at);
                }
                (Some(Kind::Enum(_) | Kind::Input(_)), _) => false,
                // A type of no schema is validation's to refuse.
                (Some(Kind::Scalar | Kind::Output(_)) | None, _) => true,
            },
        };
        if fits { Ok(()) } else { Err(refused(at, ty)) }
    }

    fn object<'a>(
        &self,
        fields: &HashMap<Name, InputField>,
        object: impl IntoIterator<Item = (&'a Name, &'a Value)> + Copy,
        at: &Place<'_>,
    ) -> Result<(), String> {
        let mut required = fields.values().filter(|field| field.required).count();
        for (name, value) in object {
            let at = Place {
                name: name.as_str(),
                within: Some(at),
            };
            let field = fields
                .get(name)
                .ok_or_else(|| format!("Variable ${at}: there is no such field."))?;
            self.fits(value, &field.ty, &at)?;
            required -= usize::from(field.required);
        }
        if required == 0 {
            return Ok(());
        }
        let mut fields = fields.iter().filter(|(_, field)| field.required);
        let missing = fields.find(|(name, _)| object.into_iter().all(|(given, _)| given != *name));
        let missing = missing.map_or("", |(name, _)| name.as_str());
        Err(format!("Variable ${at} lacks the field {missing}."))
    }
}

/// All of them, for a variable beyond the last.
fn bit(index: usize) -> u64 {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    1_u64.checked_shl(index).unwrap_or(u64::MAX)
}

impl Kind {
    fn of(kind: TypeKind) -> Self {
        let output = |fields: Vec<Positioned<async_graphql::parser::types::FieldDefinition>>| {
            let fields = fields.into_iter();
            Self::Output(
                fields
                    .map(|field| (field.node.name.node, field.node.ty.node))
                    .collect(),
            )
        };
        match kind {
            TypeKind::Scalar => Self::Scalar,
            TypeKind::Object(object) => output(object.fields),
            TypeKind::Interface(interface) => output(interface.fields),
            TypeKind::Union(_) => Self::Output(HashMap::new()),
            TypeKind::Enum(names) => {
                let names = names.values.into_iter();
                Self::Enum(names.map(|name| name.node.value.node).collect())
            }
            TypeKind::InputObject(input) => {
                let fields = input.fields.into_iter();
                Self::Input(fields.map(|field| input_field(field.node)).collect())
            }
        }
    }
}

fn input_field(field: InputValueDefinition) -> (Name, InputField) {
    let ty = field.ty.node;
    let required = !ty.nullable && field.default_value.is_none();
    (field.name.node, InputField { ty, required })
}

/// Where a value is: `input.email`.
struct Place<'a> {
    name: &'a str,
    within: Option<&'a Self>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(within) = self.within {
            write!(f, "{within}.")?;
        }
        f.write_str(self.name)
    }
}

fn refused(at: &Place<'_>, ty: &Type) -> String {
    format!("Variable ${at} is not of type {ty}.")
}
