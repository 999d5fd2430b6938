import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import "./shell/theme.css";
import "./shell/shell.css";
import "./draw/draw.css";
import "./draw/inspector.css";
import { Shell } from "./shell/shell.tsx";

const place = document.getElementById("console");
if (place) createRoot(place).render(<StrictMode><Shell /></StrictMode>);
