// Light or dark: the system's wish, until the reader says otherwise. All colours are CSS.
const darkWish = matchMedia("(prefers-color-scheme: dark)");

// Some browsers keep nothing for pages that are files.
function remembered() {
  try {
    return localStorage.getItem("evalkit-theme");
  } catch {
    return null;
  }
}

function remember(theme) {
  try {
    localStorage.setItem("evalkit-theme", theme);
  } catch {
    return;
  }
}

const theme = () => document.documentElement.dataset.theme || (darkWish.matches ? "dark" : "light");

function nameThemeButton() {
  byId("theme").textContent = theme() === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Switch to the ${theme() === "dark" ? "light" : "dark"} theme`);
}

function startTheme() {
  const kept = remembered();
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
    remember(theme());
    nameThemeButton();
  });
  darkWish.addEventListener("change", nameThemeButton);
  nameThemeButton();
}
