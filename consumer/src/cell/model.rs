//! A model of the whole of a cell: one item, its pages, several writers that run the real [`Applying`] and [`Seal`], a
//! network that loses answers and delivers copies of requests late, crashes, and pages that expire.
//!
//! The store evaluates exactly the conditions that [`expressions`](crate::expressions) writes. One of the rules can be left
//! out ([`Rule`]); then the checks must fail.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::EventKey;

use super::{Applying, Guard, Look, Seal, Step, Update};
use crate::tuning::Tuning;

/// A rule of the protocol that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A fast update asks that no key is in `recent`.
    FastNamesKeys,
    /// A fast update asks that `sealed` is below its keys …
    FastAsksSealed,
    /// … namely below the least of them, not only the greatest.
    FastAsksLeast,
    /// A late update asks that no key is in `recent`.
    LateNamesKeys,
    /// A late update asks for the epoch.
    LateAsksEpoch,
    /// An exact update asks for the epoch.
    ExactAsksEpoch,
    /// An exact update asks for the size.
    ExactAsksSize,
    /// A flip asks for the epoch.
    FlipAsksEpoch,
    /// `sealed` is the greatest key that ever left, not that of this page.
    SealedIsGreatestEver,
    /// The page is put before the flip.
    PageBeforeFlip,
    /// A page's name is unique to its contents.
    PageNameIsUnique,
    /// The search sees every page that was put before it.
    SearchIsConsistent,
    /// The search goes to the end, not only to the first page whose range fits.
    SearchGoesToTheEnd,
    /// The epoch is read before the search.
    EpochBeforeSearch,
    /// A page outlives every attempt that judged one of its keys young enough.
    PagesOutliveAttempts,
    /// What is older than the ledger reaches back is not counted.
    TooOldIsNotCounted,
}

/// A request that changes the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Request {
    Add(Vec<EventKey>, GuardText),
    Put(Vec<EventKey>, u64),
    Flip(Vec<EventKey>, EventKey, u64),
}

/// A guard, ordered, so that states can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum GuardText {
    Fast(EventKey),
    Late(u64),
    Exact(u64, usize),
}

impl From<&Update> for Request {
    fn from(update: &Update) -> Self {
        let guard = match update.guard {
            Guard::Fast { least } => GuardText::Fast(least),
            Guard::Late { epoch } => GuardText::Late(epoch),
            Guard::Exact { epoch, size } => GuardText::Exact(epoch, size),
        };
        Self::Add(update.keys.clone(), guard)
    }
}

/// What a writer is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    Applying(Applying),
    /// Searched, and has yet to read the epoch: only without [`Rule::EpochBeforeSearch`].
    SearchedTooSoon(Applying, BTreeSet<EventKey>),
    /// Sealing, and what it goes on with: a full cell is sealed before more is added.
    Putting(Seal, Option<Applying>),
    Flipping(Seal, Option<Applying>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Writer {
    batches: u8,
    doing: Doing,
}

/// One state of everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    item: Look,
    /// By the page's name: greatest key, epoch, and what makes it unique.
    pages: BTreeMap<(EventKey, u64, Vec<EventKey>), Vec<EventKey>>,
    /// How often each key was ever counted: the truth.
    counted: BTreeMap<EventKey, u8>,
    /// Keys of pages that expired.
    expired: BTreeSet<EventKey>,
    writers: Vec<Writer>,
    network: Vec<Request>,
    faults: u8,
    copies: u8,
    now_ms: i64,
}

/// A number by which writers are put in order, since it does not matter which is which.
fn hash(writer: &Writer) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    writer.hash(&mut hasher);
    hasher.finish()
}

/// How large the model is.
#[derive(Debug, Clone)]
pub struct Size {
    /// Keys, created at 0, 1, 2 … ms.
    pub keys: i64,
    /// Writers.
    pub writers: usize,
    /// Batches (or sealings out of turn) that each writer takes.
    pub batches: u8,
    /// Lost answers and crashes.
    pub faults: u8,
    /// Copies of requests that stay in the network.
    pub copies: u8,
    /// Whether time passes, so that keys grow too old and pages expire.
    pub time: bool,
    /// Limits of the protocol.
    pub tuning: Tuning,
}

/// What went wrong, and after which step.
pub type Violation = String;

/// The model: a size and at most one rule left out.
#[derive(Debug, Clone)]
pub struct Model {
    size: Size,
    left_out: Option<Rule>,
    /// Whether steps are described; that costs more than making them.
    telling: bool,
}

impl Model {
    pub fn new(size: Size, left_out: Option<Rule>) -> Self {
        Self { size, left_out, telling: false }
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) -> String {
        if self.telling { what.to_string() } else { String::new() }
    }

    /// What is said of step `nth` after `world`.
    fn told(&self, world: &World, nth: usize) -> String {
        let telling = Self { telling: true, ..self.clone() };
        telling.next(world).into_iter().nth(nth).map(|(what, _)| what).unwrap_or_default()
    }

    fn has(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    pub fn start(&self) -> World {
        World {
            item: Look::default(),
            pages: BTreeMap::new(),
            counted: BTreeMap::new(),
            expired: BTreeSet::new(),
            writers: vec![Writer { batches: self.size.batches, doing: Doing::Nothing }; self.size.writers],
            network: Vec::new(),
            faults: self.size.faults,
            copies: self.size.copies,
            now_ms: self.size.tuning.ledger_ms,
        }
    }

    fn all(&self) -> Vec<EventKey> {
        (0..self.size.keys).map(EventKey::least_at).collect()
    }

    fn oldest(&self, world: &World) -> i64 {
        world.now_ms - self.size.tuning.ledger_ms
    }

    /// The clock that a writer judges age by.
    fn clock(&self, world: &World) -> i64 {
        if self.has(Rule::TooOldIsNotCounted) { world.now_ms } else { 0 }
    }

    /// The store. Whether the condition held.
    fn execute(&self, world: &mut World, request: &Request) -> bool {
        let item = &mut world.item;
        match request {
            Request::Add(keys, guard) => {
                let unknown = keys.iter().all(|key| !item.recent.contains(key));
                let holds = match guard {
                    GuardText::Fast(least) => {
                        let asked = if self.has(Rule::FastAsksLeast) { *least } else { *keys.last().unwrap() };
                        let above = item.sealed.is_none_or(|sealed| sealed < asked);
                        (unknown || !self.has(Rule::FastNamesKeys)) && (above || !self.has(Rule::FastAsksSealed))
                    }
                    GuardText::Late(epoch) => {
                        (unknown || !self.has(Rule::LateNamesKeys))
                            && (item.epoch == *epoch || !self.has(Rule::LateAsksEpoch))
                    }
                    GuardText::Exact(epoch, size) => {
                        (item.epoch == *epoch || !self.has(Rule::ExactAsksEpoch))
                            && (item.recent.len() == *size || !self.has(Rule::ExactAsksSize))
                    }
                } && (matches!(guard, GuardText::Exact(..))
                    || item.recent.len() < self.size.tuning.hard_limit);
                if holds {
                    item.events += i64::try_from(keys.len()).unwrap();
                    for key in keys {
                        *world.counted.entry(*key).or_default() += 1;
                        item.recent.insert(*key);
                    }
                }
                holds
            }
            Request::Put(keys, epoch) => {
                let unique = if self.has(Rule::PageNameIsUnique) { keys.clone() } else { Vec::new() };
                world.pages.insert((*keys.last().unwrap(), *epoch, unique), keys.clone());
                true
            }
            Request::Flip(keys, sealed, epoch) => {
                let holds = item.epoch == *epoch || !self.has(Rule::FlipAsksEpoch);
                if holds {
                    item.recent.retain(|key| !keys.contains(key));
                    item.sealed = Some(*sealed);
                    item.epoch += 1;
                }
                holds
            }
        }
    }

    fn flip(&self, seal: &Seal) -> Request {
        let greatest = *seal.keys.last().unwrap();
        let sealed = if self.has(Rule::SealedIsGreatestEver) { seal.sealed } else { greatest };
        Request::Flip(seal.keys.clone(), sealed, seal.epoch)
    }

    fn first_of(&self, seal: Seal, then: Option<Applying>) -> Doing {
        if self.has(Rule::PageBeforeFlip) { Doing::Putting(seal, then) } else { Doing::Flipping(seal, then) }
    }

    /// Sealing is over: on with the work, from the item as the flip's answer shows it.
    fn sealed(&self, then: &Option<Applying>, world: &World) -> Doing {
        then.clone().map_or(Doing::Nothing, |mut work| {
            work.saw(world.item.clone(), self.clock(world), &self.size.tuning);
            Doing::Applying(work)
        })
    }

    /// Every first part of `recent` as it was seen: more than the policy would seal.
    fn seals(&self, look: &Look) -> Vec<Seal> {
        let most = if look.recent.len() >= self.size.tuning.seal_at { look.recent.len() } else { 0 };
        (1..=most).filter_map(|n| Seal::of(look, look.recent.iter().take(n).copied().collect())).collect()
    }

    /// Every state that can come next, with what happened.
    pub fn next(&self, world: &World) -> Vec<(String, Result<World, Violation>)> {
        let mut out = Vec::new();
        for i in 0..world.writers.len() {
            self.writer(world, i, &mut out);
        }
        for i in 0..world.network.len() {
            let mut after = world.clone();
            let request = after.network.remove(i);
            self.execute(&mut after, &request);
            out.push((self.tell(format_args!("a late copy of {request:?} arrives")), Ok(after)));
        }
        if self.size.time {
            if self.oldest(world) < self.size.keys - 1 {
                out.push(("time passes".into(), Ok(World { now_ms: world.now_ms + 1, ..world.clone() })));
            }
            for (name, keys) in &world.pages {
                let in_use = world.writers.iter().any(|writer| match &writer.doing {
                    Doing::Applying(work)
                    | Doing::SearchedTooSoon(work, _)
                    | Doing::Putting(_, Some(work))
                    | Doing::Flipping(_, Some(work)) => keys.iter().any(|key| work.todo().contains(key)),
                    _ => false,
                });
                let old = keys.iter().all(|key| key.created_ms() < self.oldest(world));
                if old && !(in_use && self.has(Rule::PagesOutliveAttempts)) {
                    let mut after = world.clone();
                    after.pages.remove(name);
                    after.expired.extend(keys);
                    out.push((self.tell(format_args!("page {keys:?} expires")), Ok(after)));
                }
            }
        }
        out.into_iter().map(|(what, after)| (what, after.and_then(|after| self.checked(after)))).collect()
    }

    fn writer(&self, world: &World, i: usize, out: &mut Vec<(String, Result<World, Violation>)>) {
        let tuning = &self.size.tuning;
        let mut push = |what: String, doing: Doing, mut after: World| {
            after.writers[i].doing = doing;
            out.push((self.tell(format_args!("writer {i}: {what}")), self.settle(after, i)));
        };
        let writer = &world.writers[i];
        if writer.doing != Doing::Nothing && world.faults > 0 {
            push("crashes".into(), Doing::Nothing, World { faults: world.faults - 1, ..world.clone() });
        }
        // Sends a request; the answer comes, or is lost and the same request goes out again, or a copy stays under way.
        let send = |request: Request, push: &mut dyn FnMut(String, Option<bool>, World)| {
            let mut after = world.clone();
            let held = self.execute(&mut after, &request);
            push(self.tell(format_args!("{request:?}: {held}")), Some(held), after.clone());
            if world.faults > 0 {
                let lost = World { faults: world.faults - 1, ..after.clone() };
                push(self.tell(format_args!("{request:?}: {held}, answer lost")), None, lost);
            }
            if world.copies > 0 {
                after.copies -= 1;
                after.network.push(request.clone());
                after.network.sort();
                push(self.tell(format_args!("{request:?}: {held}, and a copy stays under way")), Some(held), after);
            }
        };
        match &writer.doing {
            Doing::Nothing if writer.batches > 0 => {
                let mut after = world.clone();
                after.writers[i].batches -= 1;
                let all = self.all();
                for bits in 1..1u32 << all.len() {
                    let batch: Vec<_> = (0..all.len()).filter(|k| bits >> k & 1 == 1).map(|k| all[k]).collect();
                    let work = Applying::new(batch.clone());
                    push(self.tell(format_args!("takes {batch:?}")), Doing::Applying(work), after.clone());
                }
                for seal in self.seals(&world.item) {
                    push(self.tell(format_args!("begins to seal {seal:?}")), self.first_of(seal, None), after.clone());
                }
            }
            Doing::Nothing => {}
            Doing::Applying(work) => match work.step(tuning) {
                Step::Done | Step::GiveUp => {
                    push("is done".into(), Doing::Nothing, world.clone());
                    for seal in work.look().map(|look| self.seals(look)).unwrap_or_default() {
                        push(self.tell(format_args!("then seals {seal:?}")), self.first_of(seal, None), world.clone());
                    }
                }
                Step::Look => {
                    let mut work = work.clone();
                    work.saw(world.item.clone(), self.clock(world), tuning);
                    push("looks".into(), Doing::Applying(work), world.clone());
                }
                Step::Search { from } => {
                    for unseen in self.unseen(world) {
                        let found = self.search(world, from, work.todo(), unseen);
                        let mut work = work.clone();
                        let doing = if self.has(Rule::EpochBeforeSearch) {
                            work.searched(&found);
                            Doing::Applying(work)
                        } else {
                            Doing::SearchedTooSoon(work, found.clone())
                        };
                        push(self.tell(format_args!("searches from {from}: {found:?}")), doing, world.clone());
                    }
                }
                Step::Update(update) => send((&update).into(), &mut |what, held, after| {
                    let mut work = work.clone();
                    match held {
                        Some(true) => work.applied(&update, after.item.clone(), self.clock(&after), tuning),
                        Some(false) => work.refused(&update, after.item.clone(), self.clock(&after), tuning),
                        None => {}
                    }
                    push(what, Doing::Applying(work), after);
                }),
                Step::Seal(seal) => {
                    push("must seal first".into(), self.first_of(seal, Some(work.clone())), world.clone());
                }
            },
            Doing::SearchedTooSoon(work, found) => {
                let mut work = work.clone();
                work.saw(world.item.clone(), self.clock(world), tuning);
                work.searched(found);
                push("reads the epoch".into(), Doing::Applying(work), world.clone());
            }
            Doing::Putting(seal, then) => {
                send(Request::Put(seal.page().to_vec(), seal.epoch), &mut |what, held, after| {
                    let doing = match held {
                        None => Doing::Putting(seal.clone(), then.clone()),
                        Some(_) if self.has(Rule::PageBeforeFlip) => Doing::Flipping(seal.clone(), then.clone()),
                        Some(_) => self.sealed(then, &after),
                    };
                    push(what, doing, after);
                });
            }
            Doing::Flipping(seal, then) => send(self.flip(seal), &mut |what, held, after| {
                let doing = match held {
                    None => Doing::Flipping(seal.clone(), then.clone()),
                    Some(true) if !self.has(Rule::PageBeforeFlip) => Doing::Putting(seal.clone(), then.clone()),
                    Some(_) => self.sealed(then, &after),
                };
                push(what, doing, after);
            }),
        }
    }

    /// The pages that a search may fail to see, one at a time: only without [`Rule::SearchIsConsistent`].
    fn unseen(&self, world: &World) -> Vec<Option<usize>> {
        let stale = if self.has(Rule::SearchIsConsistent) { 0 } else { world.pages.len() };
        (0..stale).map(Some).chain([None]).collect()
    }

    fn search(
        &self,
        world: &World,
        from: EventKey,
        keys: &BTreeSet<EventKey>,
        unseen: Option<usize>,
    ) -> BTreeSet<EventKey> {
        let pages = world.pages.iter().enumerate().filter(|(i, (name, _))| Some(*i) != unseen && name.0 >= from);
        let pages: Vec<_> = pages.map(|(_, (_, page))| page).collect();
        let most = if self.has(Rule::SearchGoesToTheEnd) { pages.len() } else { 1 };
        pages.into_iter().take(most).flatten().filter(|key| keys.contains(key)).copied().collect()
    }

    /// Checks a writer's new verdicts, and forgets what no longer matters, so that equal states are equal.
    fn settle(&self, mut world: World, i: usize) -> Result<World, Violation> {
        let counted = &world.counted;
        let known = |key: &EventKey| counted.get(key).is_some();
        if let Doing::Applying(work) | Doing::SearchedTooSoon(work, _) = &mut world.writers[i].doing {
            let outcome = work.outcome();
            if let Some(key) = outcome.duplicates.iter().chain(&outcome.applied).find(|key| !known(key)) {
                return Err(format!("{key} was said to be counted, and never was: lost"));
            }
            work.forget();
        }
        world.writers.sort_by_cached_key(hash);
        Ok(world)
    }

    /// Invariants 2 and 3 of the design, in every state.
    fn checked(&self, world: World) -> Result<World, Violation> {
        if let Some((key, n)) = world.counted.iter().find(|(_, n)| **n > 1) {
            return Err(format!("invariant 2: {key} is counted {n} times"));
        }
        let counted: BTreeSet<_> = world.counted.keys().copied().collect();
        if usize::try_from(world.item.events) != Ok(counted.len()) {
            return Err("invariant 2: events is not the number of keys".into());
        }
        let pages = world.pages.iter().filter(|(name, _)| name.1 < world.item.epoch).flat_map(|(_, keys)| keys);
        let ledger: BTreeSet<_> = world.item.recent.iter().chain(pages).copied().collect();
        if let Some(key) = counted.iter().find(|key| !ledger.contains(key) && !world.expired.contains(key)) {
            return Err(format!("invariant 3: {key} is counted and not in the ledger"));
        }
        if let Some(key) = world.pages.values().flatten().chain(&ledger).find(|key| !counted.contains(key)) {
            return Err(format!("invariant 3: {key} is in the ledger and not counted"));
        }
        Ok(world)
    }

    /// Lets all writers finish undisturbed, redelivers every key, and asks that each young one is counted once.
    pub fn redeliver(&self, mut world: World) -> Result<(), Violation> {
        world.faults = 0;
        world.copies = 0;
        for writer in &mut world.writers {
            writer.batches = 0;
        }
        let last = Model { size: Size { time: false, ..self.size.clone() }, ..self.clone() };
        world.writers.push(Writer { batches: 0, doing: Doing::Applying(Applying::new(self.all())) });
        for _ in 0..10_000 {
            match last.next(&world).into_iter().next() {
                Some((_, after)) => world = after?,
                None => {
                    let oldest = self.oldest(&world);
                    let missing = self
                        .all()
                        .into_iter()
                        .find(|key| key.created_ms() >= oldest && !world.counted.contains_key(key));
                    return missing.map_or(Ok(()), |key| Err(format!("{key} was delivered and is not counted")));
                }
            }
        }
        Err("the writers do not come to an end".into())
    }

    /// Breadth first through all states, at most `most`. How many there are, and whether those are all.
    pub fn explore(&self, most: usize) -> Result<(usize, bool), Violation> {
        use std::hash::{BuildHasher, RandomState};
        let hasher = RandomState::new();
        let start = self.start();
        let mut seen = std::collections::HashSet::from([hasher.hash_one(&start)]);
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(world) = queue.pop_front() {
            for (nth, (_, after)) in self.next(&world).into_iter().enumerate() {
                let after = after.map_err(|violation| format!("{}: {violation}", self.told(&world, nth)))?;
                if seen.insert(hasher.hash_one(&after)) {
                    queue.push_back(after);
                }
            }
            if seen.len() >= most {
                return Ok((seen.len(), false));
            }
        }
        Ok((seen.len(), true))
    }

    /// One random history, and a full redelivery at its end.
    pub fn walk(&self, seed: u64, steps: usize) -> Result<(), Violation> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = self.start();
        for _ in 0..steps {
            let mut next = self.next(&world);
            if next.is_empty() {
                break;
            }
            // Every next state has been made and checked; only one of them is walked into.
            if let Some((nth, violation)) =
                next.iter().enumerate().find_map(|(nth, it)| Some((nth, it.1.as_ref().err()?)))
            {
                return Err(format!("{}: {violation}", self.told(&world, nth)));
            }
            world = next.swap_remove(random.usize(..next.len())).1?;
        }
        self.redeliver(world)
    }
}
