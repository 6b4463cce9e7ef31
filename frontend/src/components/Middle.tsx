/** Letters at the end that stay, since names of runs and layers differ there. */
const TAIL = 8;

/** A name that is cut in the middle where there is no room. Whoever shows it puts the whole one in a title. */
export function Middle({ text }: { text: string }) {
  if (text.length <= 2 * TAIL) return <>{text}</>;
  return (
    <span class="middle">
      <span>{text.slice(0, -TAIL)}</span>
      <span>{text.slice(-TAIL)}</span>
    </span>
  );
}
