# emmeans of linear models whose response is transformed in the formula: means, pairs and regridded
# means on the scale of the response. Run in this folder: Rscript emmeans_response.R
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(jsonlite)})
emm_options(lmer.df = "satterthwaite")
data(Machines, package = "nlme"); d <- as.data.frame(Machines); d$Worker <- factor(as.character(d$Worker))
ctl <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = .2, rhoend = 1e-10, maxfun = 1e5))
rows <- function(e) { f <- as.data.frame(summary(e, type = "response", infer = c(TRUE, TRUE)))
  names(f)[2] <- "estimate"; f[, c("estimate", "SE", "df", "lower.CL", "upper.CL", "t.ratio", "p.value")] }
out <- list()
for (r in c("log(score)", "log2(score)", "log10(score)", "log1p(score)", "log(score + 5)", "sqrt(score)")) {
  m <- lmer(as.formula(paste(r, "~ Machine + (1 | Worker)")), d, control = ctl); e <- emmeans(m, ~ Machine)
  out[[r]] <- list(means = rows(e), pairs = rows(pairs(e)), regrid = rows(regrid(e)), overall = rows(emmeans(regrid(e), ~ 1)),
    regrid_pairs = rows(pairs(regrid(e)))[, c("estimate", "SE", "t.ratio")]) }
write_json(out, "emmeans_response.json", auto_unbox = TRUE, digits = 10)
