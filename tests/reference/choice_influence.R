# Model choice and influence by lme4 and lmerTest: drop1, ranova, step, hat values, Cook's
# distances, influence by levels. Run in this folder: Rscript choice_influence.R
suppressMessages({library(lme4); library(lmerTest); library(jsonlite); library(nlme)})
tab <- function(a) { a <- as.data.frame(a); data.frame(term = rownames(a), a, check.names = FALSE) }
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.2, rhoend = 1e-10, maxfun = 1e5),
                     check.conv.singular = "ignore", calc.derivs = TRUE)
of <- function(m, groups) {
  b <- fixef(m); p <- length(b); linear <- is(m, "lmerMod"); k <- attr(logLik(m), "df"); n <- nobs(m)
  r <- list(formula = paste(deparse(formula(m)), collapse = " "), names = I(names(b)),
            AICc = AIC(m) + 2 * k * (k + 1) / (n - k - 1))
  if (linear) {
    t <- as_lmerModLmerTest(m)
    r$drop1 <- tab(lmerTest:::drop1.lmerModLmerTest(t))
    if (isREML(m)) r$drop1_kr <- tab(lmerTest:::drop1.lmerModLmerTest(t, ddf = "Kenward-Roger"))
    r$ranova <- tab(ranova(t))
    r$ranova_whole <- tab(ranova(t, reduce.terms = FALSE))
    s <- lmerTest::step(t); r$step_random <- tab(s$random); r$step_fixed <- tab(s$fixed)
    r$step_formula <- paste(deparse(formula(get_model(s))), collapse = " ")
    r$hat <- unname(hatvalues(m)); r$cook <- unname(cooks.distance(m))
    r$rstudent <- unname(rstudent(m))
  }
  ml <- if (linear && isREML(m)) update(m, REML = FALSE) else m
  r$drop1_chisq <- tab(if (linear) lme4:::drop1.merMod(as(ml, "lmerMod"), test = "Chisq") else drop1(ml, test = "Chisq"))
  if (p > 2) { V <- as.matrix(vcov(m))[-1, -1]; r$vif <- unname(diag(solve(cov2cor(V)))) }
  for (g in groups) {
    i <- influence(m, groups = g)
    r[[paste0("levels_", g)]] <- list(levels = I(rownames(i[[2]])), beta = unname(as.matrix(i[[2]])),
      cook = I(unname(as.numeric(cooks.distance(i)))), dfbetas = if (p > 1) unname(as.matrix(dfbetas(i))))
  }
  r
}
Machines <- as.data.frame(nlme::Machines); Machines$Worker <- factor(Machines$Worker, ordered = FALSE)
Orthodont <- as.data.frame(nlme::Orthodont); Orthodont$Subject <- factor(Orthodont$Subject, ordered = FALSE)
set.seed(1)
sleep <- sleepstudy; sleep$extra <- round(sin(seq_len(180)), 3); sleep$part <- factor(rep(c("a", "b", "c"), 60))
out <- list(
  sleepstudy = of(lmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = tight), "Subject"),
  sleep_extra = of(lmer(Reaction ~ Days * extra + part + (Days + extra || Subject), sleep, control = tight), NULL),
  machines = of(lmer(score ~ Machine + (1 | Worker) + (1 | Worker:Machine), Machines, REML = FALSE, control = tight), "Worker"),
  machines_slopes = of(lmer(score ~ Machine + (Machine | Worker), Machines, control = tight), NULL),
  orthodont = of(lmer(distance ~ age * Sex + (1 | Subject), Orthodont, control = tight), "Subject"),
  pastes = of(lmer(strength ~ 1 + (1 | batch) + (1 | sample), Pastes, control = tight), "batch"),
  penicillin = of(lmer(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin, control = tight), "sample"),
  dyestuff2 = of(lmer(Yield ~ 1 + (1 | Batch), Dyestuff2, control = tight), "Batch"),
  cbpp = of(glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial,
                  control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(rhoend = 1e-10, maxfun = 1e5))), "herd"))
out$versions <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")), lmerTest = as.character(packageVersion("lmerTest")))
write_json(out, "choice_influence.json", digits = 12, na = "null", auto_unbox = TRUE)
