/** Letters at the end that stay, since names of runs and layers differ there. */
const TAIL = 8;

/**
 * A name that is cut in the middle where there is no room. Whoever shows it puts the whole one in a title. The end is
 * drawn by the style sheet; as text it stands with the rest, so that a copied name is whole and on one line.
 */
export function Middle({ text }: { text: string }) {
  if (text.length <= 2 * TAIL) return <>{text}</>;
  const end = text.slice(-TAIL);
  return (
    <span class="middle" data-end={end}>
      <span>
        {text.slice(0, -TAIL)}
        <span class="end">{end}</span>
      </span>
    </span>
  );
}
