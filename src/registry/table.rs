//! A table of entries, each at a place that it keeps until it is removed.
//!
//! The entries are in chunks, so that the table grows and shrinks without moving any of them, and
//! the work of an insertion or a removal does not depend on how many there are.
//!
//! # Invariants
//!
//! 1. `open` has the number of each chunk with room, once.
//! 2. A chunk without entries has no memory. There is one in `spare` at most.

/// The entries of a chunk: as many as `used` has bits.
const IN_CHUNK: usize = u32::BITS as usize;

pub(super) struct Table<T> {
    /// The chunks by their numbers.
    chunks: Vec<Chunk<T>>,
    /// The numbers of the chunks with room. An entry is inserted into the last of them.
    open: Vec<usize>,
    /// How many chunks have entries.
    used: usize,
    /// The memory of a chunk without entries, so that a task that is started again and again does
    /// not allocate one each time.
    spare: Places<T>,
}

struct Chunk<T> {
    /// The bit of each place that has an entry.
    used: u32,
    places: Places<T>,
}

/// The places of a chunk; none if the chunk has no memory.
type Places<T> = Vec<Option<T>>;

impl<T> Table<T> {
    pub(super) const fn new() -> Table<T> {
        Table {
            chunks: Vec::new(),
            open: Vec::new(),
            used: 0,
            spare: Vec::new(),
        }
    }

    /// Inserts an entry. Returns its place.
    // Otherwise, the entry is copied once more.
    #[inline(always)]
    pub(super) fn insert(&mut self, entry: T) -> usize {
        let number = match self.open.last() {
            Some(number) => *number,
            None => self.open_next(),
        };
        if self.chunks[number].used == 0 {
            self.give_memory(number);
        }
        let chunk = &mut self.chunks[number];
        // It has room, so this is one of its places.
        let place = chunk.used.trailing_ones() as usize;
        chunk.used |= chunk.used + 1;
        chunk.places[place] = Some(entry);
        if chunk.used == u32::MAX {
            self.open.pop();
        }
        number * IN_CHUNK + place
    }

    /// Adds a chunk without memory. Returns its number.
    #[cold]
    fn open_next(&mut self) -> usize {
        let number = self.chunks.len();
        self.chunks.push(Chunk {
            used: 0,
            places: Vec::new(),
        });
        self.open.push(number);
        number
    }

    /// Gives a chunk memory for its first entry.
    #[cold]
    fn give_memory(&mut self, number: usize) {
        self.used += 1;
        let mut places = std::mem::take(&mut self.spare);
        if places.is_empty() {
            places.reserve_exact(IN_CHUNK);
            places.resize_with(IN_CHUNK, || None);
        }
        self.chunks[number].places = places;
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(place / IN_CHUNK)?;
        chunk.places.get_mut(place % IN_CHUNK)?.as_mut()
    }

    /// Removes an entry. Returns what `take` has taken out of it, which saves to move all of it.
    #[inline]
    pub(super) fn remove_with<R>(
        &mut self,
        place: usize,
        take: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let number = place / IN_CHUNK;
        let chunk = self.chunks.get_mut(number)?;
        let entry = chunk.places.get_mut(place % IN_CHUNK)?;
        let taken = take(entry.as_mut()?);
        *entry = None;
        if chunk.used == u32::MAX {
            self.open.push(number);
        }
        chunk.used &= !(1 << (place % IN_CHUNK));
        if chunk.used == 0 {
            self.take_memory(number);
        }
        Some(taken)
    }

    /// Takes the memory of a chunk without entries.
    #[cold]
    fn take_memory(&mut self, number: usize) {
        self.spare = std::mem::take(&mut self.chunks[number].places);
        self.used -= 1;
        // The numbers take little memory, so they are given back with the last chunk.
        if self.used == 0 && self.chunks.len() > 1 {
            self.chunks = Vec::new();
            self.open = Vec::new();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.iter();
        chunks.flat_map(|chunk| chunk.places.iter().flatten())
    }
}
