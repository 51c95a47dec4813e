//! A connection to a name with addresses of both families: the one that works
//! is used (RFC 8305, "Happy Eyeballs Version 2").

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::combinators::{First, first, first_ok};
use crate::proxy::context::Context;
use crate::proxy::generation::Target;
use crate::ring::timer;
use crate::route::settings::Endpoints;
use crate::upstream::key::PoolKey;
use crate::upstream::pool::{Checkout, CheckoutError, Leased};
use crate::upstream::shared::Shared;

/// How long one family has before the other is tried beside it: the Connection
/// Attempt Delay that RFC 8305 section 5 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How often somebody who waits for a connection looks who could give up theirs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A connection for `checkout`; where that takes too long and the upstream's name
/// has addresses of the other family, to whichever is there first. One that
/// fails at once is no matter of a race: the next try goes elsewhere.
pub(super) async fn checkout(
    context: &Context,
    target: &Target,
    checkout: Checkout<'_>,
) -> Result<Leased, CheckoutError> {
    let sought = seek(context, target, checkout);
    match first(sought, make_room(context, &target.shared)).await {
        First::Left(checked_out) => checked_out,
        First::Right(never) => match never {},
    }
}

async fn seek(
    context: &Context,
    target: &Target,
    checkout: Checkout<'_>,
) -> Result<Leased, CheckoutError> {
    let (pools, shared, key) = (&context.pools, &target.shared, checkout.key);
    let to = |endpoint| {
        let key = key.at(endpoint);
        pools.checkout(shared, target.opening(), Checkout { key, ..checkout })
    };
    let Some(rival) = rival(context, target, key) else {
        return to(key.endpoint).await;
    };
    // Rare, and twice as large.
    Box::pin(async {
        let mut one = pin!(to(key.endpoint));
        match first(one.as_mut(), timer::sleep(ATTEMPT_DELAY)).await {
            First::Left(checked_out) => checked_out,
            First::Right(()) => match first_ok(one, to(rival)).await? {
                First::Left(connection) | First::Right(connection) => Ok(connection),
            },
        }
    })
    .await
}

/// Beside a wait for a connection: as long as somebody waits for one, those who
/// hold theirs and do not move have to go.
async fn make_room(context: &Context, shared: &Shared) -> Infallible {
    loop {
        timer::sleep(LOOK_EVERY).await;
        if shared.permits.waiting() > 0 {
            context.make_room(shared.id);
        }
    }
}

/// An address of the other family.
fn rival(context: &Context, target: &Target, key: PoolKey) -> Option<EndpointAddr> {
    match target.upstream.endpoints {
        Endpoints::Dns { .. } => {
            let pools = &context.pools;
            pools.of_other_family(&target.shared, key.namespace, key.endpoint)
        }
        Endpoints::Static(_) | Endpoints::Original => None,
    }
}
