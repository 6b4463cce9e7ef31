import type { Severity, Status } from '../wire';

export type Sign = Severity | Exclude<Status, 'fail' | 'error'> | 'silenced';

/** Shape and colour and a name: severity is never told by colour alone. */
const SIGNS: Record<Sign, { name: string; shape: string; mark: string }> = {
  error: { name: 'error', shape: 'M5 1h6l4 4v6l-4 4H5l-4-4V5z', mark: 'M5.5 5.5l5 5m0-5l-5 5' },
  warning: { name: 'warning', shape: 'M8 1l7.5 14H.5z', mark: 'M8 6v4.2m0 2v.6' },
  info: { name: 'note', shape: 'M8 .8a7.2 7.2 0 100 14.4A7.2 7.2 0 008 .8z', mark: 'M8 4v.6m0 2.4v5' },
  none: {
    name: 'no problem',
    shape: 'M8 .8a7.2 7.2 0 100 14.4A7.2 7.2 0 008 .8z',
    mark: 'M4.8 8.2l2.3 2.4 4.2-5',
  },
  pass: {
    name: 'passed',
    shape: 'M8 .8a7.2 7.2 0 100 14.4A7.2 7.2 0 008 .8z',
    mark: 'M4.8 8.2l2.3 2.4 4.2-5',
  },
  not_applicable: { name: 'not applicable', shape: 'M2 2h12v12H2z', mark: 'M5 8h6' },
  not_evaluated: {
    name: 'not evaluated',
    shape: 'M2 2h12v12H2z',
    mark: 'M6 6.2a2 2 0 113 1.6c-.7.4-1 .8-1 1.5m0 2v.5',
  },
  another_cause: { name: 'another cause', shape: 'M2 2h12v12H2z', mark: 'M4.5 8h7m-3-3l3 3-3 3' },
  silenced: { name: 'silenced', shape: 'M2 2h12v12H2z', mark: 'M5 5l6 6' },
};

export function signName(sign: Sign): string {
  return SIGNS[sign].name;
}

export function Icon({ sign, size = 16 }: { sign: Sign; size?: number }) {
  const { name, shape, mark } = SIGNS[sign];
  return (
    <svg class={`icon ${sign}`} viewBox="0 0 16 16" width={size} height={size} role="img" aria-label={name}>
      <title>{name}</title>
      <path class="shape" d={shape} />
      <path class="mark" d={mark} />
    </svg>
  );
}
