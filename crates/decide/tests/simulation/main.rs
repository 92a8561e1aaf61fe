//! The machines against a model of Kafka and of stores in which everything goes wrong. Histories are random, as
//! many as `FHIREHOSE_HISTORIES` says, from `FHIREHOSE_SEED`; and all small ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test fails by panicking")]

mod client;
mod database;
mod explore;
mod kafka;
mod producer;
mod sink;
mod store;
mod transact;

use explore::{Kind, Mutant, Setup, System};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

fn random<S: System>() {
    let (count, seed) = (number("FHIREHOSE_HISTORIES", 10_000), number("FHIREHOSE_SEED", 1));
    let start = std::time::Instant::now();
    if let Err(why) = explore::random::<S>(count as u32, seed, None) {
        panic!("{why}");
    }
    eprintln!("{count} histories from seed {seed} in {:.1?}", start.elapsed());
}

/// Every history of two workers, one partition and two records with at most two troubles.
fn all_small<S: System>() {
    let start = std::time::Instant::now();
    let setup = Setup::new(vec![vec![Kind::Emit, Kind::Reject]], 2, None);
    let moments = explore::exhaustive::<S>(&setup, number("FHIREHOSE_DEPTH", 14) as usize, 2);
    eprintln!("{} moments in {:.1?}", moments.unwrap(), start.elapsed());
}

/// That a wrong way to drive the machine breaks a property, within a few thousand histories.
fn caught<S: System>(mutants: &[Mutant]) {
    for mutant in mutants {
        match explore::random::<S>(50_000, number("FHIREHOSE_SEED", 1), Some(*mutant)) {
            Ok(()) => panic!("{mutant:?} was not caught"),
            Err(why) => eprintln!("{mutant:?}: {why}"),
        }
    }
}

#[test]
fn kafka_to_kafka_every_record_takes_effect_once_in_random_histories() {
    random::<transact::Fleet>();
}

#[test]
fn kafka_to_kafka_every_record_takes_effect_once_in_all_small_histories() {
    all_small::<transact::Fleet>();
}

#[test]
fn kafka_to_kafka_wrong_ways_are_caught() {
    caught::<transact::Fleet>(&[
        Mutant::SlowEndTrusted,
        Mutant::DisturbedEndTrusted,
        Mutant::UnknownIsCommitted,
        Mutant::UnknownIsAborted,
        Mutant::RevokedKept,
        Mutant::PolledKept,
        Mutant::RetainedForgotten,
        Mutant::Unfenced,
        Mutant::AbortedDropped,
        Mutant::OffsetsBeforeOutputs,
        Mutant::OffsetsOutsideTransaction,
        Mutant::StartTriedAgain,
    ]);
}

#[test]
fn into_a_store_with_offsets_every_record_takes_effect_once_in_random_histories() {
    random::<store::Fleet<false>>();
}

#[test]
fn into_a_store_with_offsets_every_record_takes_effect_once_in_all_small_histories() {
    all_small::<store::Fleet<false>>();
}

#[test]
fn into_a_store_with_offsets_wrong_ways_are_caught() {
    caught::<store::Fleet<false>>(&[
        Mutant::SlowEndTrusted,
        Mutant::UnknownIsCommitted,
        Mutant::UnknownIsAborted,
        Mutant::RetainedForgotten,
        Mutant::Unfenced,
        Mutant::AbortedDropped,
        Mutant::ClaimIgnored,
        Mutant::MarkIgnored,
        Mutant::MarksNotAsked,
        Mutant::HintTrusted,
        Mutant::EpochIgnored,
        Mutant::LettersLast,
        Mutant::DroppedForClaim,
    ]);
}

#[test]
fn into_a_guarded_store_nothing_is_lost_and_letters_go_out_once_in_random_histories() {
    random::<store::Fleet<true>>();
}

#[test]
fn into_a_guarded_store_nothing_is_lost_and_letters_go_out_once_in_all_small_histories() {
    all_small::<store::Fleet<true>>();
}

#[test]
fn into_a_guarded_store_wrong_ways_are_caught() {
    caught::<store::Fleet<true>>(&[
        Mutant::UnknownIsCommitted,
        Mutant::UnknownIsAborted,
        Mutant::Unfenced,
        Mutant::AbortedDropped,
        Mutant::MarkIgnored,
        Mutant::MarksNotAsked,
        Mutant::UnansweredForgotten,
        Mutant::DroppedForClaim,
    ]);
}
