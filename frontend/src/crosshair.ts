/** A position on the shared x axis, in its units; null when the pointer left. */
export type Position = number | null;
type Listener = (x: Position, from: unknown) => void;

let current: Position = null;
const listeners = new Set<Listener>();

/**
 * The crosshair that all charts share. It moves with every pointer event, so it goes past the component tree
 * straight to whoever draws it.
 */
export const crosshair = {
  get: (): Position => current,
  move(x: Position, from: unknown): void {
    if (x === current) return;
    current = x;
    for (const listener of [...listeners]) listener(x, from);
  },
  subscribe(listener: Listener): () => void {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};
