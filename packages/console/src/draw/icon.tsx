/** Lines in a square of 16. */
const lines = {
  map: "M2.5 2.5h4.5v4.5H2.5zM9 2.5h4.5v4.5H9zM2.5 9h4.5v4.5H2.5zM9 9h4.5v4.5H9z",
  table: "M2 3.5h12v9H2zM2 6.5h12M2 9.5h12M6.5 6.5v6",
  search: "M7 2.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9ZM10.4 10.4L14 14",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  check: "M3 8.5l3.5 3.5L13 4.5",
  sun: "M8 5a3 3 0 1 1 0 6a3 3 0 1 1 0-6ZM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.1 1.1M11.9 11.9L13 13M3 13l1.1-1.1M11.9 4.1L13 3",
  moon: "M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1Z",
  system: "M2 3h12v8H2zM6 14h4M8 11v3",
  keys: "M1.5 4h13v8h-13zM4 6.5h.5M6.7 6.5h.5M9.4 6.5h.5M12 6.5h.5M4.5 9.5h7",
  leave: "M6.5 2.5h-4v11h4M6.5 8H14M11 5l3 3l-3 3",
  next: "M6 3.5L10.5 8L6 12.5",
  previous: "M10 3.5L5.5 8L10 12.5",
};
export type IconName = keyof typeof lines;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" aria-hidden>
      <path d={lines[name]} />
    </svg>
  );
}
