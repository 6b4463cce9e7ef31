import { Fragment } from 'preact';
import { useRef, useState } from 'preact/hooks';

/** Code with a copy button. The clipboard is refused in some iframes, so then the text is selected instead. */
export function Code({ text, name, title }: { text: string; name: string; title?: string }) {
  const [state, setState] = useState<'copy' | 'copied' | 'selected'>('copy');
  const block = useRef<HTMLPreElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setState('copied');
    } catch {
      const range = document.createRange();
      range.selectNodeContents(block.current as HTMLPreElement);
      const selection = window.getSelection();
      selection?.removeAllRanges();
      selection?.addRange(range);
      setState(document.execCommand('copy') ? 'copied' : 'selected');
    }
    window.setTimeout(() => setState('copy'), 2000);
  };
  const label = { copy: 'Copy', copied: 'Copied', selected: 'Press Ctrl+C' }[state];
  return (
    <div class="code">
      <div class="code-head">
        {title && <h4>{title}</h4>}
        <button type="button" class="button small copy" onClick={copy} aria-label={`Copy ${name}`}>
          <span aria-live="polite">{label}</span>
        </button>
      </div>
      <pre ref={block} tabIndex={0} role="region" aria-label={name}>
        <code>
          {text.split('\n').map((line, i) => (
            <Fragment key={i}>
              {i > 0 && '\n'}
              <span>{line}</span>
            </Fragment>
          ))}
        </code>
      </pre>
    </div>
  );
}
