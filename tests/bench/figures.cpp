#include "tests/bench/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace arancini::bench {

namespace {

double median_of(const std::vector<double>& sorted) {
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

}  // namespace

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.add_option("--json", options.json, "write medians, .min and .max here: one flat object");
  app.add_flag("--quick", options.quick, "a small load, once: shows that it works, measures little");
  app.add_option("--repeat", options.repeat, "runs; medians and spread are printed")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

const Figures::Figure* Figures::find(std::string_view key) const {
  const auto found =
      std::find_if(figures_.begin(), figures_.end(), [&](const Figure& f) { return f.key == key; });
  return found == figures_.end() ? nullptr : &*found;
}

void Figures::add(std::string_view key, double value) {
  auto found = std::find_if(figures_.begin(), figures_.end(), [&](const Figure& f) { return f.key == key; });
  if (found == figures_.end()) found = figures_.insert(found, {std::string(key), {}});
  found->sorted.insert(std::upper_bound(found->sorted.begin(), found->sorted.end(), value), value);
}

double Figures::median(std::string_view key) const {
  const Figure* figure = find(key);
  return figure == nullptr ? 0 : median_of(figure->sorted);
}

std::string Figures::text(std::string_view key, int digits, double unit) const {
  const Figure* figure = find(key);
  if (figure == nullptr) return "-";
  const std::vector<double>& all = figure->sorted;
  if (all.size() == 1) return fmt::format("{:.{}f}", all[0] / unit, digits);
  return fmt::format("{:.{}f} ({:.{}f} to {:.{}f})", median_of(all) / unit, digits, all.front() / unit,
                     digits, all.back() / unit, digits);
}

void Figures::write_json(const std::string& file) const {
  if (file.empty()) return;
  std::ofstream out(file);
  const char* separator = "{\n";
  for (const auto& [key, all] : figures_) {
    out << separator
        << fmt::format(R"(  "{0}": {1:.9g}, "{0}.min": {2:.9g}, "{0}.max": {3:.9g})", key, median_of(all),
                       all.front(), all.back());
    separator = ",\n";
  }
  out << (figures_.empty() ? "{}\n" : "\n}\n");
  out.close();
  if (!out) throw std::runtime_error(file + ": cannot be written");
}

}  // namespace arancini::bench
