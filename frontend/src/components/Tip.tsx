import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { tooltip, WORDS, type WordKey } from '../words';

/** A name with its explanation, reachable by keyboard. */
export function Term({ k, children }: { k: WordKey; children?: ComponentChildren }) {
  return (
    <button type="button" class="term" data-tip={tooltip(k)} aria-description={tooltip(k)}>
      {children ?? WORDS[k].label}
    </button>
  );
}

/** A number with its explanation on hover; the name beside it carries the same for the keyboard. */
export function Num({ k, children, note }: { k: WordKey; children: ComponentChildren; note?: string }) {
  return (
    <span class="num" data-tip={note ? `${tooltip(k)} ${note}` : tooltip(k)}>
      {children}
    </span>
  );
}

interface Shown {
  text: string;
  left: number;
  top: number;
  above: boolean;
}

/** The one tooltip of the page. Whatever has `data-tip` shows it on hover and on focus. */
export function TipLayer() {
  const [shown, setShown] = useState<Shown | null>(null);
  const owner = useRef<Element | null>(null);
  useEffect(() => {
    const show = (event: Event) => {
      const target = (event.target as Element | null)?.closest?.('[data-tip]') ?? null;
      if (target === owner.current) return;
      owner.current = target;
      const text = target?.getAttribute('data-tip');
      if (!target || !text) return setShown(null);
      const box = target.getBoundingClientRect();
      const above = box.bottom > window.innerHeight * 0.7;
      setShown({
        text,
        left: Math.min(Math.max(box.left + box.width / 2, 170), window.innerWidth - 170),
        top: above ? box.top - 6 : box.bottom + 6,
        above,
      });
    };
    const hide = () => {
      owner.current = null;
      setShown(null);
    };
    const onKey = (event: KeyboardEvent) => event.key === 'Escape' && hide();
    document.addEventListener('pointerover', show);
    // Beyond the edge of the frame nothing is pointed at.
    document.documentElement.addEventListener('pointerleave', hide);
    document.addEventListener('focusin', show);
    document.addEventListener('focusout', hide);
    document.addEventListener('keydown', onKey);
    window.addEventListener('scroll', hide, true);
    return () => {
      document.removeEventListener('pointerover', show);
      document.documentElement.removeEventListener('pointerleave', hide);
      document.removeEventListener('focusin', show);
      document.removeEventListener('focusout', hide);
      document.removeEventListener('keydown', onKey);
      window.removeEventListener('scroll', hide, true);
    };
  }, []);
  if (!shown) return null;
  const style = { left: `${shown.left}px`, top: `${shown.top}px` };
  return (
    <div class={`tip ${shown.above ? 'above' : ''}`} role="tooltip" style={style}>
      {shown.text}
    </div>
  );
}
