/* Positions and flags of packed rings, for the models of them.
 *
 * A position is a slot and a wrap counter: slot + 0 while the counter is 1, as it starts, and
 * slot + size while it is 0. So to advance is to add modulo 2 * size (packed.ts advance). */

#define F_AVAIL 1
#define F_USED 2
#define F_NEXT 4

byte size;

#define SLOT(pos) ((pos) % size)
#define WRAP(pos) ((pos) < size)
#ifdef NO_FLIP
/* The wrap counter is forgotten at the end of the ring. */
#define ADVANCE(pos, by) (((pos) + (by)) % size)
#else
#define ADVANCE(pos, by) (((pos) + (by)) % (2 * size))
#endif
/* Slots from b on to a. */
#define BEHIND(a, b) (((a) + 2 * size - (b)) % (2 * size))

/* packed.ts availableFlags, and what packedPut writes. */
#define AVAILABLE(pos) (WRAP(pos) -> F_AVAIL : F_USED)
#define USED(pos) (WRAP(pos) -> F_AVAIL + F_USED : 0)
#define IS(flags, wanted) (((flags) & (F_AVAIL + F_USED)) == (wanted))
