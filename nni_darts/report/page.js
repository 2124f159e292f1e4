// Sorts and filters tables, highlights runs in charts, and keeps the page up to date. Nothing is loaded from other servers.
(() => {
  'use strict';

  const SECONDS = 5, SLOWEST = 60, RELOAD = 10;
  const served = location.protocol.startsWith('http');
  document.documentElement.classList.add(served ? 'served' : 'local');

  // Tables. Their state is kept outside the table, because an update replaces the table.

  const orders = new Map(); // id of a table → column and direction
  const filters = new Map(); // id of a table → text

  function valueOf(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    if (text === '' || text === '–') return null;
    const number = Number(text.replaceAll(',', ''));
    return Number.isNaN(number) ? text : number;
  }

  function compared(one, other) {
    if (typeof one === 'number' && typeof other === 'number') return one - other;
    return String(one).localeCompare(String(other), 'en', { numeric: true });
  }

  function sort(table) {
    const order = orders.get(table.id);
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.querySelector('button')) {
        head.setAttribute('aria-sort', order?.column === column ? (order.down ? 'descending' : 'ascending') : 'none');
      }
    });
    if (!order) return;
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, order.column), row]);
    rows.sort(([one], [other]) => {
      if (one === null || other === null) return (one === null) - (other === null); // what has no value stands last either way
      return order.down ? compared(other, one) : compared(one, other);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  function filter(table) {
    const words = (filters.get(table.id) ?? '').toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const output = document.getElementById(`${table.id}-count`);
    if (output) output.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : '';
  }

  const headingOf = (element) => element.closest('section').querySelector('h1, h2').textContent.trim();

  function enhanceTable(table) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement('button');
      button.type = 'button';
      button.id = `${table.id}-by-${column}`;
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener('click', () => {
        const before = orders.get(table.id);
        const first = [...table.tBodies[0].rows].map((row) => valueOf(row, column)).find((value) => value !== null);
        const down = before?.column === column ? !before.down : typeof first === 'number';
        orders.set(table.id, { column, down });
        sort(table);
      });
    });
    if (table.tBodies[0].rows.length > 4) {
      const tools = document.createElement('div'), label = document.createElement('label');
      const input = document.createElement('input'), output = document.createElement('output');
      tools.className = 'tools';
      input.type = 'search';
      input.id = `${table.id}-filter`;
      input.setAttribute('aria-label', `Filter ${headingOf(table)}`);
      input.value = filters.get(table.id) ?? '';
      output.id = `${table.id}-count`;
      output.htmlFor = input.id;
      label.append('Filter ', input);
      tools.append(label, output);
      table.closest('.wide').before(tools);
      input.addEventListener('input', () => {
        filters.set(table.id, input.value);
        filter(table);
      });
    }
    sort(table);
    filter(table);
  }

  // Charts: a run that is pointed at stands out in all of them, and in the table of jobs.

  const pinned = new Set(); // groups
  let pointed = null; // a run's name, or a group

  function light() {
    const isLit = (element) =>
      pointed === null ? pinned.has(element.dataset.group) : pointed === element.dataset.run || pointed === element.dataset.group;
    for (const chart of document.querySelectorAll('.chart')) {
      let any = false;
      for (const run of chart.querySelectorAll('.run')) {
        run.classList.toggle('lit', isLit(run));
        any ||= isLit(run);
      }
      chart.classList.toggle('dimmed', any);
    }
    for (const row of document.querySelectorAll('tr[data-run]')) row.classList.toggle('lit', pointed !== null && pointed === row.dataset.run);
    for (const button of document.querySelectorAll('.legend button')) {
      button.setAttribute('aria-pressed', String(pinned.has(button.dataset.group)));
    }
  }

  function point(event) {
    const target = event.target.closest?.('.run, tr[data-run], .legend button');
    const name = target ? target.dataset.run ?? target.dataset.group : null;
    if (name === pointed) return;
    pointed = name;
    const said = target?.closest('section')?.querySelector('.said');
    if (said && target.dataset.about) said.textContent = target.dataset.about;
    light();
  }

  document.addEventListener('pointerover', point);
  document.addEventListener('focusin', point);
  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('.legend button');
    if (!button) return;
    const group = button.dataset.group;
    if (!pinned.delete(group)) pinned.add(group);
    light();
  });

  function enhance(section) {
    section.querySelectorAll('table.sortable').forEach(enhanceTable);
    for (const box of section.querySelectorAll('.wide')) {
      if (box.scrollWidth <= box.clientWidth) continue;
      box.tabIndex = 0; // a box that scrolls must be reachable by keyboard, and then has a name
      box.setAttribute('role', 'region');
      box.setAttribute('aria-label', headingOf(box));
    }
    light();
  }

  // Updates: the page is fetched again when its data has changed, and only the sections that differ are replaced.

  const sectionsOf = (page) => [...page.querySelectorAll('main > section[id]')];
  const sources = new Map(sectionsOf(document).map((section) => [section.id, section.outerHTML]));

  function replace(here, fresh) {
    const open = [...here.querySelectorAll('details')].map((details) => details.open);
    const shifts = [...here.querySelectorAll('.wide')].map((box) => box.scrollLeft);
    here.replaceWith(fresh);
    fresh.querySelectorAll('details').forEach((details, index) => (details.open = open[index] ?? details.open));
    enhance(fresh);
    fresh.querySelectorAll('.wide').forEach((box, index) => (box.scrollLeft = shifts[index] ?? 0));
  }

  // The section that must not move: the one at work, or the first whose beginning is in the window, or the one that fills it.
  function reading(focused) {
    const places = sectionsOf(document).map((section) => [section, section.getBoundingClientRect()]);
    const seen = places.filter(([, place]) => place.bottom > 0 && place.top < innerHeight);
    const found = seen.find(([section]) => section.contains(focused)) ?? seen.find(([, place]) => place.top >= 0) ?? seen[0];
    return found?.[0];
  }

  function take(page) {
    const focused = document.activeElement, caret = focused?.selectionStart;
    const held = reading(focused);
    const before = held?.getBoundingClientRect().top;
    const wanted = sectionsOf(page);
    let previous = null;
    for (const section of wanted) {
      const source = section.outerHTML, here = document.getElementById(section.id);
      if (!here || sources.get(section.id) !== source) {
        const fresh = document.importNode(section, true);
        sources.set(section.id, source);
        if (here) replace(here, fresh);
        else {
          if (previous) previous.after(fresh);
          else document.querySelector('main').prepend(fresh);
          enhance(fresh);
        }
      }
      previous = document.getElementById(section.id);
    }
    const kept = new Set(wanted.map((section) => section.id));
    for (const section of sectionsOf(document)) if (!kept.has(section.id)) section.remove();
    document.title = page.title;
    document.body.dataset.over = page.body.dataset.over;
    if (focused?.id && !focused.isConnected) {
      const again = document.getElementById(focused.id);
      again?.focus({ preventScroll: true });
      if (caret != null) again?.setSelectionRange?.(caret, caret);
    }
    const still = held && document.getElementById(held.id);
    if (still && window.scrollY > 0) window.scrollBy(0, still.getBoundingClientRect().top - before);
  }

  let last = null, pause = SECONDS;

  async function fetched(address, type) {
    const answer = await fetch(address, { cache: 'no-cache' });
    // NNI answers with its own page where there is no such file.
    if (!answer.ok || !(answer.headers.get('Content-Type') ?? '').includes(type)) throw new Error(`no ${address}`);
    return answer.text();
  }

  async function look() {
    if (document.body.dataset.over) return;
    const status = document.getElementById('connection');
    let data = null, text = null;
    try {
      data = await fetched(document.body.dataset.source, 'json');
      if (data !== last) text = await fetched(location.pathname, 'html');
    } catch {
      data = null;
    }
    status.hidden = data !== null;
    pause = status.hidden ? SECONDS : Math.min(2 * pause, SLOWEST);
    setTimeout(look, 1000 * pause);
    // NNI cuts a file off that is replaced while it is read; the page is then fetched again the next time.
    if (text === null || !text.trimEnd().endsWith('</html>')) return;
    last = data;
    const page = new DOMParser().parseFromString(text, 'text/html');
    if (sectionsOf(page).length) take(page);
  }

  sectionsOf(document).forEach(enhance);
  if (!document.body.dataset.over) {
    if (served) setTimeout(look, 1000 * SECONDS);
    else if (document.body.dataset.reload) setTimeout(() => location.reload(), 1000 * RELOAD);
  }
})();
