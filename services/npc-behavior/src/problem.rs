//! Validates a request and compiles it into a small planning problem: facts become numbers, and irrelevant ones are
//! removed.

use std::collections::{BTreeMap, HashMap, HashSet};

use proto::npc::behavior::v1::{Action, PlanRequest};

const MAX_ACTIONS: usize = 256;
const MAX_NODE_LIMIT: u32 = 1_000_000;
/// Distinct facts with values in goal, preconditions and effects. The world may have any number.
const MAX_ATOMS: usize = 4_096;
/// Preconditions and effects of all actions and facts of the goal together: compiling them takes a few milliseconds.
pub(crate) const MAX_CONDITIONS: usize = 16_384;
/// Far above any practical cost, and low enough that the cost of a plan does not become infinite.
const MAX_COST: f64 = 1e12;

/// A fact and its value, as numbers of this problem.
pub(crate) type Assignment = (u16, u16);

/// A compiled request.
#[derive(Debug)]
pub(crate) enum Parsed {
    Solvable(Problem),
    /// There is no plan: no reachable action sets this fact of the goal.
    Unreachable {
        fact: String,
        value: i64,
    },
}

/// A planning problem. It contains only actions that are reachable and relevant, and only facts that these change and
/// read. All values of a fact that no action reads are one value.
#[derive(Debug)]
pub(crate) struct Problem {
    /// One value per fact.
    pub(crate) start: Vec<u16>,
    pub(crate) goal: Vec<Target>,
    /// Ordered by name, so that the order in the request has no influence.
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) cost: f64,
    pub(crate) preconditions: Vec<Assignment>,
    pub(crate) effects: Vec<Assignment>,
}

/// One fact of the goal.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) fact: u16,
    pub(crate) value: u16,
    /// The cost of the cheapest action that sets it.
    pub(crate) min_cost: f64,
    /// The same, but an action that sets several facts of the goal splits its cost evenly among them.
    pub(crate) shared_cost: f64,
}

impl Problem {
    /// Validates and compiles a request. The error is a sentence.
    pub(crate) fn parse(request: &PlanRequest) -> Result<Parsed, String> {
        check(request)?;
        let mut actions: Vec<&Action> = request.actions.iter().collect();
        actions.sort_by(|one, other| one.name.cmp(&other.name));
        let atoms = Atoms::new(request, &actions);
        if atoms.names.len() > MAX_ATOMS {
            return Err(format!("goal and actions name more than {MAX_ATOMS} different facts and values"));
        }

        let (reachable, reached) = atoms.reachable();
        if let Some(&missing) = atoms.goal.iter().find(|&&atom| !reached[atom]) {
            let (fact, value) = atoms.names[missing];
            return Ok(Parsed::Unreachable { fact: fact.to_owned(), value });
        }
        let (relevant, needed) = atoms.relevant(&reachable);
        Ok(Parsed::Solvable(atoms.problem(&actions, &relevant, &needed)))
    }
}

fn check(request: &PlanRequest) -> Result<(), String> {
    if request.npc_id.is_empty() {
        return Err("`npc_id` is empty".to_owned());
    }
    if request.node_limit > MAX_NODE_LIMIT {
        return Err(format!("`node_limit` is above {MAX_NODE_LIMIT}"));
    }
    if request.actions.len() > MAX_ACTIONS {
        return Err(format!("there are more than {MAX_ACTIONS} actions"));
    }
    let of_actions = request.actions.iter().map(|action| action.preconditions.len() + action.effects.len());
    if request.goal.len() + of_actions.sum::<usize>() > MAX_CONDITIONS {
        return Err(format!("goal, preconditions and effects have more than {MAX_CONDITIONS} entries together"));
    }
    let mut names = HashSet::new();
    for action in &request.actions {
        let name = &action.name;
        if name.is_empty() {
            return Err("an action has no name".to_owned());
        }
        if !names.insert(name) {
            return Err(format!("two actions are called `{name}`"));
        }
        if !(action.cost.is_finite() && action.cost > 0.0 && action.cost <= MAX_COST) {
            return Err(format!("cost of action `{name}` must be above 0 and at most {MAX_COST:e}"));
        }
    }
    Ok(())
}

/// The index of a fact with a value in the request.
type Atom = usize;

/// The request in terms of atoms.
struct Atoms<'a> {
    names: Vec<(&'a str, i64)>,
    start: Vec<Atom>,
    goal: Vec<Atom>,
    preconditions: Vec<Vec<Atom>>,
    effects: Vec<Vec<Atom>>,
}

impl<'a> Atoms<'a> {
    fn new(request: &'a PlanRequest, actions: &[&'a Action]) -> Self {
        let mut known = HashMap::new();
        let mut names = Vec::new();
        let mut intern = |facts: &'a BTreeMap<String, i64>| -> Vec<Atom> {
            let atom = |(fact, &value): (&'a String, &i64)| {
                *known.entry((fact.as_str(), value)).or_insert_with(|| {
                    names.push((fact.as_str(), value));
                    names.len() - 1
                })
            };
            facts.iter().map(atom).collect()
        };
        let goal = intern(&request.goal);
        let preconditions = actions.iter().map(|action| intern(&action.preconditions)).collect();
        let effects = actions.iter().map(|action| intern(&action.effects)).collect();
        // A fact that is absent in the world is 0.
        let start = names
            .iter()
            .enumerate()
            .filter(|(_, (fact, value))| request.world.get(*fact).copied().unwrap_or(0) == *value)
            .map(|(atom, _)| atom)
            .collect();
        Self { names, start, goal, preconditions, effects }
    }

    /// The reachable actions and atoms, if no effect were ever undone (delete relaxation).
    fn reachable(&self) -> (Vec<bool>, Vec<bool>) {
        let mut waiting = vec![Vec::new(); self.names.len()];
        for (action, preconditions) in self.preconditions.iter().enumerate() {
            for &atom in preconditions {
                waiting[atom].push(action);
            }
        }
        let mut missing: Vec<usize> = self.preconditions.iter().map(Vec::len).collect();
        let mut reachable: Vec<bool> = missing.iter().map(|&missing| missing == 0).collect();
        let mut reached = vec![false; self.names.len()];
        let mut open = self.start.clone();
        for (action, _) in reachable.iter().enumerate().filter(|(_, reachable)| **reachable) {
            open.extend(&self.effects[action]);
        }
        while let Some(atom) = open.pop() {
            if std::mem::replace(&mut reached[atom], true) {
                continue;
            }
            for &action in &waiting[atom] {
                missing[action] -= 1;
                if missing[action] == 0 {
                    reachable[action] = true;
                    open.extend(&self.effects[action]);
                }
            }
        }
        (reachable, reached)
    }

    /// The relevant actions, which set an atom of the goal or a precondition of a relevant action, and the atoms that
    /// these read. A plan stays a plan without its irrelevant actions.
    fn relevant(&self, reachable: &[bool]) -> (Vec<bool>, Vec<bool>) {
        let mut setting = vec![Vec::new(); self.names.len()];
        for (action, effects) in self.effects.iter().enumerate().filter(|(action, _)| reachable[*action]) {
            for &atom in effects {
                setting[atom].push(action);
            }
        }
        let mut relevant = vec![false; self.effects.len()];
        let mut needed = vec![false; self.names.len()];
        let mut open = self.goal.clone();
        while let Some(atom) = open.pop() {
            if std::mem::replace(&mut needed[atom], true) {
                continue;
            }
            for &action in &setting[atom] {
                if !std::mem::replace(&mut relevant[action], true) {
                    open.extend(&self.preconditions[action]);
                }
            }
        }
        (relevant, needed)
    }

    fn problem(&self, actions: &[&Action], relevant: &[bool], needed: &[bool]) -> Problem {
        let steps = || (0..actions.len()).filter(|&action| relevant[action]);
        let changed: HashSet<&str> =
            steps().flat_map(|action| &self.effects[action]).map(|&atom| self.names[atom].0).collect();

        // A needed atom of a fact that never changes holds: otherwise it would not be reachable. The value 0 stands for
        // all values that no action reads.
        let mut facts: HashMap<&str, (u16, u16)> = HashMap::new();
        let mut assignments: Vec<Option<Assignment>> = vec![None; self.names.len()];
        for (atom, &(name, _)) in self.names.iter().enumerate() {
            if needed[atom] && changed.contains(name) {
                let next = to_u16(facts.len());
                let (fact, values) = facts.entry(name).or_insert((next, 0));
                *values += 1;
                assignments[atom] = Some((*fact, *values));
            }
        }
        let assignments_of =
            |atoms: &[Atom]| -> Vec<Assignment> { atoms.iter().filter_map(|&atom| assignments[atom]).collect() };
        let set = |atoms: &[Atom]| -> Vec<Assignment> {
            let value = |&atom: &Atom| {
                let fact = facts.get(self.names[atom].0)?.0;
                Some(assignments[atom].unwrap_or((fact, 0)))
            };
            atoms.iter().filter_map(value).collect()
        };

        let mut start = vec![0; facts.len()];
        for (fact, value) in assignments_of(&self.start) {
            start[usize::from(fact)] = value;
        }
        let steps: Vec<Step> = steps()
            .map(|action| Step {
                name: actions[action].name.clone(),
                cost: actions[action].cost,
                preconditions: assignments_of(&self.preconditions[action]),
                effects: set(&self.effects[action]),
            })
            .collect();
        let goal = targets(&assignments_of(&self.goal), &steps);
        Problem { start, goal, steps }
    }
}

fn targets(goal: &[Assignment], steps: &[Step]) -> Vec<Target> {
    let mut targets: Vec<Target> = goal
        .iter()
        .map(|&(fact, value)| Target { fact, value, min_cost: f64::INFINITY, shared_cost: f64::INFINITY })
        .collect();
    let index: HashMap<Assignment, usize> = goal.iter().enumerate().map(|(at, &atom)| (atom, at)).collect();
    for step in steps {
        let reached: Vec<usize> = step.effects.iter().filter_map(|atom| index.get(atom).copied()).collect();
        let shared_cost = step.cost / f64::from(to_u16(reached.len()));
        for at in reached {
            let target = &mut targets[at];
            target.min_cost = target.min_cost.min(step.cost);
            target.shared_cost = target.shared_cost.min(shared_cost);
        }
    }
    targets
}

/// Converts a count of atoms, of which there are at most [`MAX_ATOMS`].
fn to_u16(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
