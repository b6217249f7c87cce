//! What a request asks for, checked and made small: facts become numbers, and what cannot matter is left out.

use std::collections::{BTreeMap, HashMap, HashSet};

use proto::npc::behavior::v1::{Action, PlanRequest};

const MAX_ACTIONS: usize = 256;
const MAX_NODE_LIMIT: u32 = 1_000_000;
/// Different facts and values in goal, preconditions and effects. The world may have any number.
const MAX_ATOMS: usize = 4_096;
/// Far above any use, and far enough below infinity that the cost of no plan gets there.
const MAX_COST: f64 = 1e12;

/// A fact and a value that it has: both as numbers of this problem.
pub(crate) type Assignment = (u16, u16);

/// A request that may have a plan, or is known to have none.
#[derive(Debug)]
pub(crate) enum Goal {
    Possible(Problem),
    /// No action sets this goal fact, or none of those that do can ever be taken.
    Unreachable {
        fact: String,
        value: i64,
    },
}

/// Only actions that can be taken and can help are here, and only facts that these change and look at. Of the values of a fact,
/// those that nothing looks at are one.
#[derive(Debug)]
pub(crate) struct Problem {
    /// One value per fact.
    pub(crate) start: Vec<u16>,
    pub(crate) goal: Vec<Target>,
    /// Ordered by name, so that the order in the request does not matter.
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) cost: f64,
    pub(crate) needs: Vec<Assignment>,
    pub(crate) sets: Vec<Assignment>,
}

/// One fact of the goal.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) fact: u16,
    pub(crate) value: u16,
    /// Cost of the cheapest action that sets it.
    pub(crate) least: f64,
    /// The same, where an action that sets several facts of the goal splits its cost evenly among them.
    pub(crate) share: f64,
}

impl Problem {
    /// Checks the request and prepares the search; or says in one sentence what is wrong with it.
    pub(crate) fn parse(request: &PlanRequest) -> Result<Goal, String> {
        check(request)?;
        let mut actions: Vec<&Action> = request.actions.iter().collect();
        actions.sort_by(|one, other| one.name.cmp(&other.name));
        let atoms = Atoms::new(request, &actions);
        if atoms.names.len() > MAX_ATOMS {
            return Err(format!("goal and actions name more than {MAX_ATOMS} different facts and values"));
        }

        let (usable, reached) = atoms.usable();
        if let Some(&missing) = atoms.goal.iter().find(|&&atom| !reached[atom]) {
            let (fact, value) = atoms.names[missing];
            return Ok(Goal::Unreachable { fact: fact.to_owned(), value });
        }
        let (helpful, needed) = atoms.helpful(&usable);
        Ok(Goal::Possible(atoms.problem(&actions, &helpful, &needed)))
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

/// Index of a fact with a value, as the request names them.
type Atom = usize;

/// The request in terms of atoms.
struct Atoms<'a> {
    names: Vec<(&'a str, i64)>,
    start: Vec<Atom>,
    goal: Vec<Atom>,
    needs: Vec<Vec<Atom>>,
    sets: Vec<Vec<Atom>>,
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
        let needs = actions.iter().map(|action| intern(&action.preconditions)).collect();
        let sets = actions.iter().map(|action| intern(&action.effects)).collect();
        // A fact that the world does not name is 0.
        let start = names
            .iter()
            .enumerate()
            .filter(|(_, (fact, value))| request.world.get(*fact).copied().unwrap_or(0) == *value)
            .map(|(atom, _)| atom)
            .collect();
        Self { names, start, goal, needs, sets }
    }

    /// Which actions could be taken some time, and which atoms could hold, if nothing that once holds were ever undone.
    fn usable(&self) -> (Vec<bool>, Vec<bool>) {
        let mut waiting = vec![Vec::new(); self.names.len()];
        for (action, needs) in self.needs.iter().enumerate() {
            for &atom in needs {
                waiting[atom].push(action);
            }
        }
        let mut missing: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut usable: Vec<bool> = missing.iter().map(|&missing| missing == 0).collect();
        let mut reached = vec![false; self.names.len()];
        let mut open = self.start.clone();
        for (action, _) in usable.iter().enumerate().filter(|(_, usable)| **usable) {
            open.extend(&self.sets[action]);
        }
        while let Some(atom) = open.pop() {
            if std::mem::replace(&mut reached[atom], true) {
                continue;
            }
            for &action in &waiting[atom] {
                missing[action] -= 1;
                if missing[action] == 0 {
                    usable[action] = true;
                    open.extend(&self.sets[action]);
                }
            }
        }
        (usable, reached)
    }

    /// Which of these actions lead to the goal, or to what such an action needs, and which atoms these look at. Taking another one
    /// away from a plan leaves a plan.
    fn helpful(&self, usable: &[bool]) -> (Vec<bool>, Vec<bool>) {
        let mut setting = vec![Vec::new(); self.names.len()];
        for (action, sets) in self.sets.iter().enumerate().filter(|(action, _)| usable[*action]) {
            for &atom in sets {
                setting[atom].push(action);
            }
        }
        let mut helpful = vec![false; self.sets.len()];
        let mut needed = vec![false; self.names.len()];
        let mut open = self.goal.clone();
        while let Some(atom) = open.pop() {
            if std::mem::replace(&mut needed[atom], true) {
                continue;
            }
            for &action in &setting[atom] {
                if !std::mem::replace(&mut helpful[action], true) {
                    open.extend(&self.needs[action]);
                }
            }
        }
        (helpful, needed)
    }

    fn problem(&self, actions: &[&Action], helpful: &[bool], needed: &[bool]) -> Problem {
        let steps = || (0..actions.len()).filter(|&action| helpful[action]);
        let changed: HashSet<&str> =
            steps().flat_map(|action| &self.sets[action]).map(|&atom| self.names[atom].0).collect();

        // What is needed and never changes holds, or it would not have been reached. The value 0 stands for all that nothing needs.
        let mut facts: HashMap<&str, (u16, u16)> = HashMap::new();
        let mut assignments: Vec<Option<Assignment>> = vec![None; self.names.len()];
        for (atom, &(name, _)) in self.names.iter().enumerate() {
            if needed[atom] && changed.contains(name) {
                let next = small(facts.len());
                let (fact, values) = facts.entry(name).or_insert((next, 0));
                *values += 1;
                assignments[atom] = Some((*fact, *values));
            }
        }
        let looked_at =
            |atoms: &[Atom]| -> Vec<Assignment> { atoms.iter().filter_map(|&atom| assignments[atom]).collect() };
        let set = |atoms: &[Atom]| -> Vec<Assignment> {
            let value = |&atom: &Atom| {
                let fact = facts.get(self.names[atom].0)?.0;
                Some(assignments[atom].unwrap_or((fact, 0)))
            };
            atoms.iter().filter_map(value).collect()
        };

        let mut start = vec![0; facts.len()];
        for (fact, value) in looked_at(&self.start) {
            start[usize::from(fact)] = value;
        }
        let steps: Vec<Step> = steps()
            .map(|action| Step {
                name: actions[action].name.clone(),
                cost: actions[action].cost,
                needs: looked_at(&self.needs[action]),
                sets: set(&self.sets[action]),
            })
            .collect();
        let goal = targets(&looked_at(&self.goal), &steps);
        Problem { start, goal, steps }
    }
}

fn targets(goal: &[Assignment], steps: &[Step]) -> Vec<Target> {
    let mut targets: Vec<Target> =
        goal.iter().map(|&(fact, value)| Target { fact, value, least: f64::INFINITY, share: f64::INFINITY }).collect();
    let index: HashMap<Assignment, usize> = goal.iter().enumerate().map(|(at, &atom)| (atom, at)).collect();
    for step in steps {
        let reached: Vec<usize> = step.sets.iter().filter_map(|atom| index.get(atom).copied()).collect();
        let share = step.cost / f64::from(small(reached.len()));
        for at in reached {
            let target = &mut targets[at];
            target.least = target.least.min(step.cost);
            target.share = target.share.min(share);
        }
    }
    targets
}

/// Counts of atoms fit: there are at most [`MAX_ATOMS`].
fn small(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
