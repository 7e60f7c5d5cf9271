//! Owners that actions name.

use buildyard_layer::Tree;
use buildyard_layer::fileop::{Owner, ReadSmall};
use buildyard_layer::names::{NameOrId, chown_owner, name_files};
use buildyard_llb::pb::{self, user_opt::User};
use std::sync::Arc;

use super::FileStepError;

/// The owner that `chown` means, names looked up in the trees that it points to.
pub(super) fn owner(
    chown: &Option<pb::ChownOpt>,
    trees: &[Arc<Tree>],
    read: &mut ReadSmall<'_>,
) -> Result<Option<Owner>, FileStepError> {
    let Some(chown) = chown else { return Ok(None) };
    let (user, group) = (name_or_id(&chown.user), name_or_id(&chown.group));
    let input = [&chown.user, &chown.group].into_iter().find_map(|user| {
        match user.as_ref()?.user.as_ref()? {
            User::ByName(named) => usize::try_from(named.input).ok(),
            User::ById(_) => None,
        }
    });
    let names = match input.and_then(|input| trees.get(input)) {
        Some(tree) => name_files(tree, read).map_err(|error| {
            FileStepError::Machine("reading etc/passwd and etc/group".to_owned(), error)
        })?,
        None => Default::default(),
    };
    Ok(Some(chown_owner(&names, user.as_ref(), group.as_ref())))
}

fn name_or_id(user: &Option<pb::UserOpt>) -> Option<NameOrId> {
    match user.as_ref()?.user.as_ref()? {
        User::ByName(named) => Some(NameOrId::Name(named.name.clone())),
        User::ById(id) => Some(NameOrId::Id(*id)),
    }
}
