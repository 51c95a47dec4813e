//! Which CPUs proxy, clients and upstreams have.

use serde::Serialize;

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Client, proxy and upstream on one CPU.
    One,
    /// The proxy alone on a CPU, client and upstream on another.
    Apart,
    /// The proxy on the first two CPUs or one of them, two clients and two
    /// upstreams on the others.
    Scaling,
}

impl Placement {
    /// How many CPUs it takes to tell anything.
    pub fn cpus(self) -> usize {
        match self {
            Self::One => 1,
            Self::Apart => 2,
            Self::Scaling => 4,
        }
    }

    /// The CPUs of the clients, one process on each, and those of the upstreams,
    /// of so many.
    pub fn of_load(self, machine: usize) -> (Vec<usize>, Vec<usize>) {
        match self {
            Self::One => (vec![0], vec![0]),
            Self::Apart => (vec![1], vec![1]),
            Self::Scaling => {
                let others: Vec<usize> = match machine {
                    // Forced: all share what there is.
                    0..=2 => (0..machine).collect(),
                    _ => (2..machine).collect(),
                };
                let mut each = others.iter().copied().cycle();
                // Clients on neighbouring ones: connections are steered by the
                // number of the CPU.
                let clients = each.by_ref().take(2).collect();
                (clients, each.take(2).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_of_two_shards_is_beside_them_where_there_is_room() {
        let placed = |machine| Placement::Scaling.of_load(machine);
        assert_eq!(placed(2), (vec![0, 1], vec![0, 1]));
        assert_eq!(placed(3), (vec![2, 2], vec![2, 2]));
        assert_eq!(placed(4), (vec![2, 3], vec![2, 3]));
        assert_eq!(placed(8), (vec![2, 3], vec![4, 5]));
    }
}
