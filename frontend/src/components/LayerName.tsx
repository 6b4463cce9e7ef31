/** A layer's path. Where there is no room its folders give way, since the last part tells layers apart. */
export function LayerName({ name }: { name: string }) {
  const cut = name.lastIndexOf('/') + 1;
  return (
    <span class="layer-name" title={name}>
      {cut > 0 && <span class="folders">{name.slice(0, cut)}</span>}
      <span class="leaf">{name.slice(cut)}</span>
    </span>
  );
}
